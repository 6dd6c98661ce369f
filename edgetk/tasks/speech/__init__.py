"""Speech Commands: front end, augmentation and loaders. The task itself is `edgetk.tasks.speech_commands`."""
