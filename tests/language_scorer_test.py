import functools

import micro
import numpy as np
import pytest
import small_language

from w2v2_jax.checkpoints import Checkpoints
from w2v2_jax.data.words import WordList
from w2v2_jax.description import describe
from w2v2_jax.language_scorer import NotALanguageModelError, load_language_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    small_language.write_text(folder)
    return folder


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    make = functools.partial(small_language.experiment, data_dir)
    micro.run(make, workdir, devices=1, num_steps=150, log_every=150, eval_every=150, save_every=150)
    return workdir


@pytest.fixture(scope="module")
def scorer(run):
    return load_language_model(run)


def test_what_was_learned_is_likely_and_nonsense_is_not(scorer):
    likely, unlikely, unknown = scorer(["C D E F", "C B E A", "C D X F"])
    assert likely > -8 > unlikely
    assert likely > unknown


def test_the_score_of_a_text_is_the_sum_over_its_words_and_its_end(scorer):
    texts = ["A B", "", "H A B C D"]
    each = scorer.log_probs(texts)
    assert [len(found) for found in each] == [3, 1, 6]
    np.testing.assert_allclose(scorer(texts), [found.sum() for found in each])


def test_a_text_has_the_same_score_alone_and_among_others(scorer):
    texts = [small_language.sentence(number) for number in range(40)] + [" ".join("ABCDEFGH" * 3)]
    alone = [scorer([text])[0] for text in texts[::10]]
    np.testing.assert_allclose(scorer(texts)[::10], alone, rtol=1e-4)


def test_the_next_words_of_a_sentence_add_up_to_its_score(scorer):
    words = (*"BCDE", "</s>")
    found = scorer.next_word([(words[:place], word) for place, word in enumerate(words)])
    np.testing.assert_allclose(found, scorer.log_probs(["B C D E"])[0], atol=1e-4)


def test_the_next_words_of_a_history_are_all_that_may_come(scorer):
    found = scorer.next_word([(("A", "B"), word) for word in scorer.words.words])
    assert scorer.words.words[int(found.argmax())] == "C"
    padding = scorer.model.words.num_words - len(scorer.words)
    assert 1 - 0.05 * padding < np.exp(found).sum() <= 1 + 1e-5


def test_nothing_asked_is_nothing_answered(scorer):
    assert scorer([]).shape == scorer.next_word([]).shape == (0,)


def test_perplexity_is_that_of_the_evaluation_in_training(scorer, run, data_dir):
    texts = (data_dir / "dev.txt").read_text().splitlines()
    [loss] = [row["valid/loss"] for row in micro.metric_rows(run) if "valid/loss" in row]
    found = scorer.perplexity(texts)
    assert found.with_unknown == found.without_unknown == pytest.approx(np.exp(loss), rel=1e-4)
    assert (found.num_tokens, found.num_unknown) == (sum(len(text.split()) + 1 for text in texts), 0)


def test_perplexity_without_unknown_words_leaves_out_these_alone(scorer):
    found, scores = scorer.perplexity(["A X C"]), scorer.log_probs(["A X C"])[0]
    assert found.num_unknown == 1
    assert found.without_unknown == pytest.approx(np.exp(-np.delete(scores, 1).mean()))


def test_no_text_has_no_perplexity(scorer):
    with pytest.raises(ValueError, match="a text without a sentence has no perplexity"):
        scorer.perplexity([])


def test_the_words_may_lie_elsewhere(run, scorer, tmp_path):
    scorer.words.write(tmp_path / "words.txt")
    assert load_language_model(run, tmp_path / "words.txt").words == scorer.words


def test_words_that_are_not_there_or_of_another_model_are_an_error(run, tmp_path):
    with pytest.raises(NotALanguageModelError, match=r"aren't in .*nowhere; say where their words\.txt is"):
        load_language_model(run, tmp_path / "nowhere")
    WordList(("</s>", "<unk>", *map(str, range(15)))).write(tmp_path / "words.txt")
    with pytest.raises(NotALanguageModelError, match=r"has 17 words and .* only 16"):
        load_language_model(run, tmp_path / "words.txt")


def test_another_checkpoint_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, describe(micro.finetuning()))
    checkpoints.save(0, {"params": {"x": np.zeros(1)}}, {})
    checkpoints.close()
    with pytest.raises(NotALanguageModelError, match="is no checkpoint of a language model"):
        load_language_model(tmp_path)
