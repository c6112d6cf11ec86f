"""Real people: the voice prompts of Asterisk in five languages, to pretrain on; ten minutes of English, to fine-tune.

pip install -e '.[asterisk]'
w2v2 prepare asterisk prompts --fetch
w2v2 train experiments.asterisk.pretrain
w2v2 train experiments.asterisk.finetune
w2v2 train experiments.asterisk.scratch
w2v2 evaluate runs/asterisk_finetune asterisk/test
w2v2 evaluate runs/asterisk_scratch asterisk/test
"""
