"""Small pictures in classes: front end, augmentation and loaders. The task itself is `edgetk.tasks.cifar10`."""
