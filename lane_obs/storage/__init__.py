"""Where durable commands are kept."""


def adapt(storage):
    return storage
