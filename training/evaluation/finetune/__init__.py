"""evaluate=finetune: fine-tuning of the whole network on few labels."""
