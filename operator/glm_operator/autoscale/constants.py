"""Every number of the law that no spec sets, with its unit and its reason. Pure.

What people set is in spec.scaling; what is here follows from how samples come, from statistics, or was chosen on the
scenarios of `benchmarks/autoscale.py`.
"""

# -- what may be believed of a sample

STALE_INTERVALS = 3.0
"""Scrape intervals after which a group that was not seen is stale: two lost scrapes are bad luck, three are a fault."""

STALE_MIN_S = 15.0
STALE_MAX_S = 45.0
"""Bounds of that age: a group scraped each second is not stale after three; nothing is fresh past the window."""

AHEAD_S = 15.0
"""How far a sample may lie in the future: clocks of two machines differ, and a scrape ends after it began."""

ENDED_INTERVALS = 2.5
"""Scrape intervals after which a series is over if another target of its group goes on: a pod that was replaced."""

HUGE = 1e15
"""Numbers from here on are no measurement. Sums of smaller ones cannot overflow, and are exact enough."""

MOST_GROUPS = 1_000_000
"""Demand is cut off here, so that whatever is measured fits an integer. Far above every bound of a spec."""

HUNG_S = 30.0
"""A group whose requests run and whose counters all stand still this long says nothing of its load."""

THAW_S = 50.0
"""How long the counters of a group that hung say nothing of its load: as long as their jump is within the window."""

RECENT_S = 15.0
"""Span of the newest samples that show a step of arrivals before the whole window does."""

STEP_SIGMAS = 3.0
"""Standard deviations by which they must exceed the window: below, chance explains it."""

LATENCY_STALE_S = 60.0
"""Age of latencies, asked for every 15 s, from which they say nothing."""

# -- what a group can do

MIN_BUSY = 0.002
"""Busy seconds a second from which tokens over busy time are a rate; below, the clock's grain is measured."""

RATE_BUSY_S = 20.0
"""Busy seconds over which the measured prefill rate is averaged."""

STEP_S = 60.0
"""Seconds over which the time of a step at a batch size is averaged."""

LENGTH_S = 120.0
"""Seconds over which lengths of prompts and answers are averaged."""

MIN_ENDED = 5.0
"""Requests that must have ended in a window to tell how long an answer is."""

STEADY_RUNNING = 0.5
"""Change of the running requests, against those that ended, up to which the length of an answer can be told."""

HOPEFUL, CAREFUL = 0.1, 0.5
"""Share of a decode step's time that grows with the batch, until batches of several sizes were seen: when a group is
asked for, and when one is to go.
So a first guess neither adds groups (the queue does, where it was wrong) nor removes any."""

STEP_PRIOR = 0.01
"""Weight of that guess, against the spread of the batches seen: the square of a deviation of 10 %."""

BATCH_REACH = 8.0
"""How many times the largest batch seen a group that is left may get: further out, nobody has been."""

KV_TARGET = 0.85
"""Share of the KV cache that is planned for. Above it, long answers preempt each other."""

ITL_ROOM = 1.1
"""Room above the groups that the promise of ITL needs on average: percentiles lie above means."""

ITL_MIN_ROOM = 0.05
"""Least share of a promise of ITL that is taken to be left beside an empty step."""

TTFT_MAX_USE = 0.95
TTFT_MIN_USE = 0.3
"""Bounds of the share of prefill time that a promise of TTFT leaves: queues are estimated, and never more than that."""

# -- demand

UNPROMISED_WAIT_S = 10.0
"""How long a request may wait where no class promises a time that can be kept."""

LEVEL_S = 60.0
"""Seconds over which arrivals are smoothed while chance explains how they vary."""

NOISE = 1.5
"""Standard deviation of tokens that arrive, against that of requests: prompts differ in length."""

NOISE_SIGMAS = 2.5
"""Standard deviations from which arrivals have changed, and are no longer smoothed."""

UP_TOLERANCE = 0.05
"""Demand above what there is by less than this adds no group: 1 to 5 % of noise never flips."""

DOWN_MARGIN = 0.10
"""The groups that are left must carry this much more than there is. With UP_TOLERANCE it is a band of 15 %."""

HORIZON_TTFTS = 4.0
HORIZON_MIN_S = 15.0
"""A backlog is worked off within this many promises of TTFT, and no sooner than this, once new groups serve."""

BACKLOG_SHARE = 1.0
"""Most groups for a backlog, against those for what arrives: what a burst left never more than doubles the fleet."""

GENERATED_SHARE = 1.2
"""Most that tokens generated count, against arrivals times the length of an answer: a queue that is worked off
generates more than what arrives asks for."""

LATE = 0.5
"""Share of the promise that the oldest request has waited when its queue is late."""

AGE_SPAN_S = 10.0
AGE_SPANS = 3.0
"""Time over which the oldest age must not fall before it asks for a group that measured demand does not; and after how
many of these times an age says nothing any more."""

SETTLE_S = 30.0
"""Least time that a new group gets to show its effect before the age asks for another; latencies, their window more.
One that warms up gets the whole of its warm-up."""

# -- look-ahead

TREND_PARTS, TREND_PART_S = 6, 30.0
"""The slope of arrivals is seen over that many parts of that many seconds, and of twice that: a step is no slope."""

TREND_SIGMAS = 2.5
"""Standard deviations that arrivals must have risen by over them."""

LOOKAHEAD_USE = 0.95
"""Share of a group's time that arrivals may take when a group that is ordered now serves. The room that people plan for
growth is for this growth; it is not asked for twice."""

LOOKAHEAD_MAX_S = 600.0
"""A line is not drawn further ahead, however long a start takes."""

LOOKAHEAD_MAX_GROWTH = 1.0
"""Most that arrivals are taken to grow by, against what they are."""

SWELL_SPAN_S = 28.0
SWELL_SIGMAS = 3.5
"""Requests that run have grown if they are more than so many seconds ago (half a minute of scrapes), and than on
average before, by more than so many times the root of their number."""

SWELL_REFILL_S = 90.0
"""How long after a group went the others take to fill up: about as long as an answer."""

SWELL_MAX_S = 60.0
"""They are not taken to grow for longer: the first of them end by then, whatever has become longer."""

COLD_START_S = 60.0
"""Before any start was measured."""

COLD_START_MAX_S = 3600.0
COLD_STARTS_KEPT = 20
"""Starts that count: shorter than that, and the newest so many."""

# -- latency as feedback

MIN_REQUESTS = 20.0
"""Requests in a window from which its 95th percentile says anything."""

BOOST_MAX = 1.5
"""Most that a missed percentile multiplies the safety factor by. It never multiplies groups."""

BOOST_GAIN = 0.5
"""How much the factor rises a minute while a percentile is twice its promise or more; less below."""

BOOST_DECAY_S = 300.0
"""Time constant with which it goes back to 1."""

CAN_HELP = 0.5
"""Share of the planned use from which more groups can make requests faster."""

FAST_BURN = 6.0
"""Times an even burn of the error budget from which stabilisation is shortened up and doubled down."""

BURN_DOWN_FACTOR = 2.0

KEEP_STARTS = 2.0
KEEP_MIN_S, KEEP_MAX_S = 60.0, 300.0
"""Starts, and bounds in seconds, for which a group is kept that is not needed, unless the spec says how long.

Keeping it for a start costs what bringing it back does; once more is for what the promises would lose meanwhile. Below
the first it is noise, and longer than the second is a matter of a schedule."""

REGRET_S = 300.0
"""A group that is wanted back within that time was removed too soon: the load comes in bursts."""

REGRETTED_S = 3600.0
"""Groups are then kept for the longest of those times, until it has not happened for so long."""

NEW_LOAD_S = 1800.0
"""They are kept for as long, too, in the first time that a deployment is looked at: its bursts are not known yet."""

INFEASIBLE_MARGIN = 1.1
"""A promise found infeasible is feasible again only this far above the floor, so that it does not flap."""

# -- no group at all

DEAF_S = 120.0
"""For so long a gateway may be away or silent before a deployment without groups gets one: nobody would hear of a
request. A gateway that is replaced is back sooner."""

# -- time

MAX_STEP_S = 120.0
"""Most time that counts between two decisions. Whatever a clock does, timers move on by 0 to this."""

WRITE_LAG_S = 30.0
"""How long the number before our last write may still be seen."""
