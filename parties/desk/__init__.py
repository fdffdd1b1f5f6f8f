"""The firm's desk: a process that holds data, models, policy and log, and answers at a socket.

Flower starts the firm's app anew for every message, and runs code that the operator sent. So that
app holds nothing: it hands each question to the desk (`attached`), which answers (`serving`) what
was agreed (`agreement`) and what the firm's own policy (`policy`) does not forbid (`desk`), keeps
models and answers on disk (`kept`), and writes down what came and what left (`audit`).
"""
