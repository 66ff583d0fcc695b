#!/usr/bin/env python3
"""What croniter says of 200 cron expressions in five zones.

Writes lines of expression, zone, start, and times after it, all as seconds since 1970,
to the first file; the moments at which the zones change their clocks, to the second.
"""
import datetime as dt
import random
import sys
from zoneinfo import ZoneInfo

from croniter import croniter

WEEKDAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kolkata']
TIMES = 8

# The night in which the clock is changed, in the zones that do so.
NIGHTS = ['2026-03-28T12', '2026-10-24T12', '2026-03-07T20', '2026-10-31T20', '2026-04-04T06', '2026-10-03T06']

KNOWN = [
    '@hourly', '@daily', '@weekly', '@monthly', '@yearly', '*/15 * * * *', '0 9 * * mon-fri',
    '30 2 * * *', '0 0 1,15 * *', '0 0 * * 0', '0 0 * * 7', '0 0 L * *', '0 0 * * 5#2',
    '0 0 29 2 *', '0 0 13 * fri', '15 1-5 * * *', '*/30 1,2,3 * * *', '0 */2 * * *',
    '5/20 * * * *', '45 23 31 12 *', '0 12 1-7 * mon', '0 0 * jan,jul sun', '30 1 * * *',
    '*/7 */5 * * *', '0 0 */10 * *', '0 22-23,0-2 * * *', '59 23 * * sat,sun',
]


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
        # croniter takes 1-1 for all of them
        begin, end = sorted(random.sample(range(low, high + 1), 2))
        return '%d-%d' % (begin, end) + ('/%d' % random.choice([2, 3]) if random.random() < .3 else '')
    return ','.join(str(n) for n in sorted(random.sample(range(low, high + 1), random.randint(2, 4))))


def expressions():
    random.seed(42)
    found = list(KNOWN)
    while len(found) < 200:
        text = ' '.join([field(0, 59, any_share=.15), field(0, 23), field(1, 28),
                         field(1, 12, MONTHS, .7), field(0, 6, WEEKDAYS, .6)])
        if text not in found:
            found.append(text)
    return found


def changes(zone):
    """Hour by hour over the years: where the offset differs."""
    at = dt.datetime(2019, 12, 1, tzinfo=dt.timezone.utc)
    end = dt.datetime(2033, 1, 1, tzinfo=dt.timezone.utc)
    last = None
    while at < end:
        offset = at.astimezone(zone).utcoffset()
        if last is not None and offset != last:
            yield int(at.timestamp())
        last = offset
        at += dt.timedelta(minutes=30)


def main():
    starts = [dt.datetime(2020, 1, 1) + dt.timedelta(days=days) for days in range(0, 3653, 365)]
    starts += [dt.datetime.fromisoformat(night) for night in NIGHTS]
    with open(sys.argv[1], 'w') as out:
        for text in expressions():
            for zone in ZONES:
                for start in starts:
                    start = start.replace(tzinfo=dt.timezone.utc)
                    # As Vixie's cron: a field that begins with an asterisk is no restriction.
                    times = croniter(text, start.astimezone(ZoneInfo(zone)), implement_cron_bug=True)
                    answers = ' '.join(str(int(times.get_next(float))) for _ in range(TIMES))
                    print(text, zone, int(start.timestamp()), answers, sep='\t', file=out)
    with open(sys.argv[2], 'w') as out:
        for zone in ZONES:
            for at in changes(ZoneInfo(zone)):
                print(zone, at, sep='\t', file=out)


main()
