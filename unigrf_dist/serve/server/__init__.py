"""``unigrf serve``: recommendations over HTTP, from one process on the CPU.

The way of a request: ``gate.Gate`` lets it in; ``schema`` says what it may hold; ``app`` hands it to
``batching.Batcher``, whose threads answer several at once by ``answers.Answers``, all of them from one
``versions.Version`` of model, catalogue and blend. ``live_users.LiveUsers`` knows what happened since the data set
was made.
"""
