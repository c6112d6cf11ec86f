import jax
import pytest

from w2v2_jax import demo


@pytest.fixture
def restored_configuration():
    names = ("jax_disable_most_optimizations", "jax_compilation_cache_dir")
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.slow
def test_the_demo_runs_from_audio_to_figures_and_again_without_training(tmp_path, restored_configuration, capsys):
    pytest.importorskip("espeakng_loader")
    size = demo.QUICK._replace(train_minutes=0.5, test_minutes=0.3, pretrain_steps=31, finetune_steps=1)
    reports = demo.run(tmp_path, size)
    assert list(reports) == ["pretrained", "from scratch"]
    references = [[utterance.reference for utterance in report.utterances] for report in reports.values()]
    assert references[0] == references[1] and len(references[0]) >= 5
    for figure in ("pretraining.png", "finetuning.png", "utterance.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "from scratch" in shown and references[0][0] in shown

    rows = {path: path.read_text() for path in tmp_path.glob("*/metrics.jsonl")}
    assert len(rows) == 3
    assert demo.run(tmp_path, size) == reports
    assert {path: path.read_text() for path in rows} == rows
