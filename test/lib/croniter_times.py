#!/usr/bin/env python3
"""When 200 cron expressions come in five zones, as croniter reads them.

Writes two files of lines: expression, zone, start, end, and the times after start until
end, all as seconds since 1970.

The first: croniter says which times of a clock match, without a zone, and `moments` below
when the clock of a zone shows them, by the rule in docs/scheduling.md.
The second: croniter with the zone, and its own rule for nights when clocks are changed.
"""
import bisect
import datetime as dt
import random
import sys
from zoneinfo import ZoneInfo

from croniter import croniter

WEEKDAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata']
YEARS = range(2020, 2031)
TIMES = 16
HOUR = 3600

KNOWN = [
    '@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually',
    '*/15 * * * *', '0 9 * * mon-fri', '30 2 * * *', '0 0 1,15 * *', '0 0 * * 0', '0 0 * * 7',
    '0 0 L * *', '0 0 15,L * *', '0 0 * * 5#2', '0 0 * * fri#1,mon#3', '0 0 * * L5', '0 2 * * L0',
    '0 0 29 2 *', '0 0 31 * *', '0 0 13 * fri', '0 0 */13 * fri', '0 0 13 * */5', '0 0 1-7 * *', '30 2 ? * sun',
    '15 1-5 * * *', '*/30 1,2,3 * * *', '0 */2 * * *', '0 1-3 * * *', '0,30 1,2 * * *', '15,45 * * * *',
    '5/20 * * * *', '45 23 31 12 *', '0 12 1-7 * mon', '0 0 * jan,jul sun', '30 1 * * *', '20 2 * 3,10 sun',
    '*/7 */5 * * *', '0 0 */10 * *', '0 22-2 * * *', '59 23 * * SAT,Sun', '0 0 * * fri-mon', '0 0 * * sun-thu',
    '0 0 28-3 * *', '0 0 1 nov-feb *', '50-10/10 2 * * *', '0 0 * * 7-2', '0-59/20 0-23 * * *', '*/20 2 * * sun',
    # six fields, of which the first one is for seconds
    '30 0 2 * * *', '*/20 59 1 * * *', '15,45 */30 * * * sun', '0 0 3 * * *',
]

# Those of which the differences between the two rules are listed in the test.
LISTED = ['30 2 * * *', '0 2 * * *', '30 1 * * *', '45 1 * * *', '0,30 1,2 * * *', '0 1-3 * * *', '0 */2 * * *',
          '*/30 * * * *', '15 * * * *', '*/20 2 * * sun', '0 3 * * *']
LISTED_YEAR = 2026


def value(low, high, names):
    number = random.randint(low, high)
    return names[number - low] if names and random.random() < .5 else str(number)


def field(low, high, names=None, any_share=.4):
    choice = random.random()
    if choice < any_share:
        return '*'
    if choice < any_share + .12:
        return '*/%d' % random.choice([2, 3, 5, 10, 15, 20] if high > 30 else [2, 3, 4, 6])
    if choice < .75:
        return value(low, high, names)
    if choice < .88:
        begin, end = sorted(random.sample(range(low, high + 1), 2))
        return '%d-%d' % (begin, end) + ('/%d' % random.choice([2, 3]) if random.random() < .3 else '')
    return ','.join(str(n) for n in sorted(random.sample(range(low, high + 1), random.randint(2, 4))))


def expressions():
    random.seed(42)
    found = list(KNOWN)
    while len(found) < 200:
        # Half of them in the hours in which clocks are changed.
        hour = field(0, 23) if len(found) % 2 else field(0, 4, any_share=.1)
        text = ' '.join([field(0, 59, any_share=.15), hour, field(1, 31),
                         field(1, 12, MONTHS, .7), field(0, 6, WEEKDAYS, .6)])
        try:
            times(text, 0)
            found.extend([] if text in found else [text])
        except ValueError:
            pass                # it never comes
    return found


def times(text, start):
    """Without an end."""
    # As Vixie's cron: a field of days that begins with an asterisk is no restriction.
    # croniter looks ahead 50 years at most; an iterator checks that it finds something.
    matches = croniter(text, start, implement_cron_bug=True, second_at_beginning=True)
    first = matches.get_next(float)

    def rest():
        yield int(first)
        while True:
            yield int(matches.get_next(float))
    return rest()


class Clock:
    """Of a zone: when it is changed, and what it is ahead of UTC from then on."""

    def __init__(self, name):
        self.zone = ZoneInfo(name)
        day = int(dt.datetime(YEARS[0] - 1, 12, 1, tzinfo=dt.timezone.utc).timestamp())
        end = int(dt.datetime(YEARS[-1] + 45, 1, 1, tzinfo=dt.timezone.utc).timestamp())
        self.changes, self.offsets = [], [self.ask(day)]
        while day < end:
            if self.ask(day + 24 * HOUR) != self.offsets[-1]:
                at = bisect.bisect_left(range(day, day + 24 * HOUR), True, key=lambda t: self.ask(t) != self.offsets[-1])
                self.changes.append(day + at)
                self.offsets.append(self.ask(day + at))
            day += 24 * HOUR

    def ask(self, at):
        return int(dt.datetime.fromtimestamp(at, self.zone).utcoffset().total_seconds())

    def offset(self, at):
        return self.offsets[bisect.bisect_right(self.changes, at)]

    def moments(self, text, shown):
        """When it shows a time, as far as a run of that expression begins then."""
        offsets = {self.offset(shown - 24 * HOUR), self.offset(shown + 24 * HOUR)}
        found = sorted(shown - offset for offset in offsets if self.offset(shown - offset) == offset)
        words = text.split()[-5:]
        if text == '@hourly' or words[0].startswith('*') or len(words) == 5 and words[1].startswith('*'):
            return found
        # A time of the day: the first, or else the moment at which it was leapt over.
        return found[:1] or [next(at for at in self.changes if at > shown - max(offsets))]


def after(text, clock, start, end=None):
    """The times until end, or TIMES of them."""
    found = []
    for shown in times(text, start + clock.offset(start) - 3 * HOUR):
        moments = clock.moments(text, shown)
        for at in moments:
            if start < at and (end is None or at <= end) and at not in found:
                bisect.insort(found, at)
        # One that the clock shows later can come earlier by as much as it is set back.
        safe = shown - clock.offset(shown) - 3 * HOUR
        if end is not None and safe > end or end is None and len(found) >= TIMES and safe > found[TIMES - 1]:
            return found if end is not None else found[:TIMES]


def in_words_of_croniter(text, clock, start, end=None):
    matches = croniter(text, dt.datetime.fromtimestamp(start, clock.zone), implement_cron_bug=True, second_at_beginning=True)
    found = []
    while end is not None or len(found) < TIMES // 2:
        at = int(matches.get_next(float))
        if end is not None and at > end:
            break
        found.append(at)
    return found


def write(out, text, zone, start, found, end=None):
    print(text, zone, start, end or found[-1], '{%s}' % ','.join(map(str, found)), sep='\t', file=out)


def main():
    clocks = {zone: Clock(zone) for zone in ZONES}
    starts = [int(dt.datetime(year, 1, 1, tzinfo=dt.timezone.utc).timestamp()) + 37 * 24 * HOUR * n for n, year in enumerate(YEARS)]
    texts = expressions()
    with open(sys.argv[1], 'w') as out:
        for zone, clock in clocks.items():
            nights = [at for at in clock.changes if dt.datetime.fromtimestamp(at).year in YEARS]
            for text in texts:
                for start in starts:
                    write(out, text, zone, start, after(text, clock, start))
                for at in nights:
                    write(out, text, zone, at - 5 * HOUR, after(text, clock, at - 5 * HOUR, at + 5 * HOUR), at + 5 * HOUR)
    with open(sys.argv[2], 'w') as out:
        for zone, clock in clocks.items():
            for text in texts:
                for start in starts[::3]:
                    write(out, text, zone, start, in_words_of_croniter(text, clock, start))
            for at in clock.changes:
                if dt.datetime.fromtimestamp(at).year == LISTED_YEAR:
                    for text in LISTED:
                        write(out, text, zone, at - 5 * HOUR, in_words_of_croniter(text, clock, at - 5 * HOUR, at + 5 * HOUR), at + 5 * HOUR)
    with open(sys.argv[3], 'w') as out:
        for zone, clock in clocks.items():
            for at in clock.changes:
                print(zone, at, sep='\t', file=out)


main()
