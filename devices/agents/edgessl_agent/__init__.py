"""The program that runs on the board: it tells what the board is, and times one model file.

    agent.pyz facts               one line of facts, standard library only
    agent.pyz bench --plan FILE   does what the plan says (numpy and one runtime)

Python 3.8 syntax; it travels as one file (``edgessl.devices.agent_file``). The plan is JSON.
Answers are JSON lines ``{"k": kind, "t": seconds, ...}``: hello, facts, tel, idle, building, built,
loaded, golden, first, warmup, lat, timed, sensor, layers, acc, done, or error. A run without
``done`` failed. Times inside ``lat`` are nanoseconds in the order they were taken, one list per
part; ``*_ns`` are readings of the monotonic clock. ``bench`` ends when its standard input closes or
falls silent, and everything that it started ends with it.
"""

PROTO = 2
