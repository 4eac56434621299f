"""The verbs with their helps, examples and options; what they do lies in a module each, named here and imported late."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from infra.cli import backup_options, generation_options, remedy_options


@dataclass(frozen=True)
class Verb:
    """One verb: what its help says, and the function that carries it out: `module.function(args, settings) -> int`."""

    name: str
    help: str
    description: str
    example: str
    module: str
    function: str
    options: Callable[[argparse.ArgumentParser], None]


# what a column can be, of events and of items; consumers.columns finds those that are not given
COLUMN_ROLES = ("user", "item", "time", "type", "value", "event_id", "session", "request", "properties", "title", "category",
                "hidden", "expires_at")


def positive(text: str) -> int:
    """A count, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few; expected 1 or more")
    return number


def seconds(text: str) -> float:
    """A span in seconds, for argparse."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is too short or too long; expected 0.1 to 86400 seconds")
    return number


def port(text: str) -> int:
    """A port number, for argparse."""
    number = positive(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port; expected 1 to 65535")
    return number


def _up(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--kafka-port", type=port, metavar="PORT", help="port of Kafka (default: a free one)")
    sub.add_argument("--redis-port", type=port, metavar="PORT", help="port of Redis (default: a free one)")


def _down(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--wipe", action="store_true", help="remove topics, rows and lists too")


def _logs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--log-format", choices=("text", "json"), help="lines for people, or one JSON object a line (default: the setting log_format)")


def _json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def _top(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--interval", type=seconds, default=2.0, metavar="SECONDS", help="how long between two looks (default 2)")


def _none(sub: argparse.ArgumentParser) -> None:
    del sub


def _import(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", metavar="FILE", help="CSV (.csv), JSON lines (.jsonl) or Parquet (.parquet); the first two may end in .gz")
    sub.add_argument("--kind", choices=("events", "items"), default="events", help="what the rows are (default events)")
    sub.add_argument("--restart", action="store_true", help="begin at the first row, though an earlier import came further; "
                                                            "rows keep their event ids")
    rows(sub)


def rows(sub: argparse.ArgumentParser) -> None:
    """How a file is to be read."""
    sub.add_argument("--format", choices=("csv", "jsonl", "parquet"), help="where the file's name does not tell")
    sub.add_argument("--default-type", default="purchase", metavar="TYPE", help="event type of rows that name none (default purchase)")
    sub.add_argument("--limit", type=positive, metavar="ROWS", help="only the first so many rows")
    columns = sub.add_argument_group("columns", "names in the file, where they are not the usual ones (user_id, userId, ts, ...)")
    for role in COLUMN_ROLES:
        columns.add_argument(f"--{role.replace('_', '-')}", metavar="COLUMN", dest=f"column_{role}")
    _json(sub)


def _lookup(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("user", metavar="USER", help="user id (with --similar: item id)")
    sub.add_argument("--similar", action="store_true", help="what goes with this item, instead of a user's list")
    sub.add_argument("-n", type=positive, default=20, metavar="N", help="how many items to show (default 20)")
    _json(sub)


def _demo(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--keep", action="store_true", help="leave the stack and the workers' lists up at the end")
    sub.add_argument("--light", action="store_true", help="train no release beside it, which needs torch")


#: Of a recorded log: role, and what it means.
LOG_COLUMNS = (("user", "who"), ("item", "what"), ("time", "when (absent: rows are taken in their order)"),
               ("type", "kind of event (absent: --default-type)"),
               ("value", "of a rating (with --default-type rating, where no column tells the type)"),
               ("basket", "what was taken at once (absent: the same user at the same moment)"),
               ("category", "of the item, for the diversity of lists (absent: none)"))


def _recorded(sub: argparse.ArgumentParser) -> None:
    """How a recorded log is read; `infra.cli.backtest.load` does it."""
    sub.add_argument("--data", metavar="FOLDER", help="where the named data sets lie, for those that are not a package")
    columns = sub.add_argument_group("columns of a file", "where they have other names than the usual ones (user_id, userId, ts, ...)")
    for role, meaning in LOG_COLUMNS:
        columns.add_argument(f"--{role}", metavar="COLUMN", dest=f"column_{role}", help=meaning)
    columns.add_argument("--format", choices=("csv", "jsonl", "parquet"), help="where the file's name does not tell")
    columns.add_argument("--default-type", default="purchase", metavar="TYPE", help="event type of rows that name none (default purchase)")
    columns.add_argument("--limit", type=positive, metavar="ROWS", help="only the first so many rows")


def _backtest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", metavar="FILE|DATASET", help="CSV, JSON lines or Parquet; or completejourney (package), diginetica, "
                                                           "yoochoose, beauty, ml-1m, taobao, taobao-users (with --data)")
    sub.add_argument("--out", metavar="DIR", help="write report.json, report.md, ranks and plots into this folder")
    sub.add_argument("--json", action="store_true", help="print the report as one JSON object instead of tables")
    _recorded(sub)
    judged = sub.add_argument_group("what is judged")
    judged.add_argument("--contender", action="append", metavar="NAME", help="product; one of its channels alone (repeat, covisitation, two_hop, "
                        "mf, transformer, popular_1h, popular_1d, popular_7d, popular); or yours as module:Name. May be repeated (default: the product and "
                        "each channel of its blend)")
    judged.add_argument("--releases", metavar="STORE", help="folder or URL of the Transformer's releases: each is served from the moment at "
                        "which what it learned from ends, never before; contender transformer: it alone")
    judged.add_argument("--against", metavar="NAME", help="show differences to this contender, with 95%% intervals")
    judged.add_argument("--audit", action="store_true", help="first check that no contender looks ahead: replace all later events, "
                                                             "and compare lists")
    rules = sub.add_argument_group("how it is judged")
    rules.add_argument("--protocol", choices=("instant", "lagged", "periodic", "ader"), help="how old the state is that ranks: instant (each "
                       "basket is learned before the next; the default), lagged, periodic, or ADER's (for sets with periods)")
    rules.add_argument("--lag", metavar="SPAN,...", help="lagged: how far behind, such as 1s, 1m, 1h, 1d; several are compared")
    rules.add_argument("--period", metavar="SPAN", help="periodic: how often the state is renewed (default: the set's periods, else 1d)")
    rules.add_argument("--repeats", choices=("all", "new", "repeat"), default="all", help="score everything that was taken (default; "
                       "what is new to the user and what he had before are reported apart too), or only one kind, ranked among its kind")
    rules.add_argument("--warmup", type=float, metavar="SHARE", help="events before the first that is scored (default 0.3; 0.9 with "
                                                                     "--sample-baskets)")
    rules.add_argument("--score-periods", metavar="FIRST-LAST", help="score these periods of a set, instead of what follows a warm-up")
    rules.add_argument("--targets", metavar="TYPE,...", help="types of events that are to be foreseen (default: all that speak for an item)")
    rules.add_argument("--min-history", type=int, metavar="EVENTS", help="score only users with so many events before (default 0; 1 for sets "
                                                                         "of sessions)")
    rules.add_argument("--sample", type=float, metavar="SHARE", help="score this share of the baskets; all are learned")
    rules.add_argument("--sample-baskets", type=positive, metavar="N", help="score so many baskets, drawn without replacement; all are learned")
    rules.add_argument("--seed", type=int, default=42, help="of what is drawn (default 42)")
    rules.add_argument("--chunk", type=positive, default=64, metavar="BASKETS", help="what others did may be so many baskets old (default 64); "
                                                                                   "a user's own is always exact")


def _bench(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", nargs="?", help="which benchmark; none: say which there are; all: each in turn")
    sub.add_argument("--json", action="store_true", help="one JSON object a claim")
    sub.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="options of the benchmark itself")


def _train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", metavar="FILE|DATASET", nargs="?", help="a recorded log: CSV, JSON lines or Parquet, or a data set as `streamrec "
                     "backtest` has them; trained on once, without Kafka (default: the events that Kafka holds)")
    _logs(sub)
    sub.add_argument("--once", action="store_true", help="do one training on what the topic holds now, and end")
    sub.add_argument("--every", metavar="SPAN", help="start a training so long after the last one, such as 6h (default: the setting train_every_s)")
    sub.add_argument("--events", type=positive, metavar="N", help="start one after so many new events (default: the setting train_events)")
    sub.add_argument("--store", metavar="URL", help="where releases go (default: the setting models_store)")
    sub.add_argument("--items", metavar="FILE", help="with a file: what is said of items, as `streamrec import --kind items` reads it, for the setting "
                     "train_text")
    sub.add_argument("--announce", action="store_true", help="with a file: judge against what running workers serve, and have them serve what passes")
    sub.add_argument("--json", action="store_true", help="with --once or a file: one JSON object instead of sentences")
    _recorded(sub)


def _models(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=("list", "show", "promote", "rollback"), help="list: all of the store; show: one's manifest; promote: have "
                                                                                    "one served; rollback: the one before the present, or VERSION")
    sub.add_argument("version", metavar="VERSION", nargs="?", help="a release, whole or as it begins or ends; promote none: serve none")
    sub.add_argument("--store", metavar="URL", help="where releases lie (default: the setting models_store)")
    sub.add_argument("--json", action="store_true", help="list as one JSON object")


def _cli(module: str) -> str:
    return f"infra.cli.{module}"


VERBS = (
    Verb("up", "start a local Kafka and Redis", "Starts Apache Kafka and Redis on free loopback ports, data under .streamrec "
         "(or $STREAMREC_HOME), creates the topics, and notes the addresses where all other verbs find them.\n"
         "What already runs is left as it is. STREAMREC_KAFKA_BOOTSTRAP and STREAMREC_REDIS_URL win over the note.",
         "  streamrec up\n  streamrec up --kafka-port 9092 --redis-port 6379", _cli("servers"), "up", _up),
    Verb("down", "stop what `up` started", "Stops exactly the servers that `streamrec up` started, and waits for them. "
         "Data stays, unless --wipe.", "  streamrec down", _cli("servers"), "down", _down),
    Verb("status", "how the whole system is, at a glance", "Shows servers, workers, lag and freshness, lists, the model, how often the lists are "
         "right, dead letters, Redis' memory.\nExit code 0: healthy; 1: not, and a sentence says what is not. It works when parts are down.",
         "  streamrec status\n  streamrec status --json | jq .problems", _cli("status"), "run", _json),
    Verb("top", "the same, live", "Renews what `status` shows until q or Ctrl-C; where there is no terminal, one plain line at each look.",
         "  streamrec top\n  streamrec top --interval 10 >> top.log", _cli("top"), "run", _top),
    Verb("worker", "run one worker in the foreground", "Absorbs events and publishes lists until SIGTERM or Ctrl-C. Start as "
         "many as you like, on as many machines; they share the partitions among themselves.",
         "  streamrec worker\n  STREAMREC_WEB_PORT=8000 streamrec worker --log-format json --set log_level=DEBUG", _cli("worker"), "run", _logs),
    Verb("import", "send a file of events to Kafka", "Reads a file, makes an event of each row, and sends the valid ones; "
         "counts rejected rows by reason.\nAn import that was broken off goes on where it stopped, and nothing is counted twice.",
         "  streamrec import purchases.csv --user household_id --item product_id --time transaction_timestamp\n"
         "  streamrec import products.jsonl --kind items",
         _cli("load"), "run", _import),
    Verb("validate", "what would be rejected, without sending or absorbing it", "Checks a file by the import's rules, or messages by the workers', "
         "and counts by reason, with the first examples and where they are.\nExit code 0: nothing would be rejected, 1: something.",
         "  streamrec validate purchases.csv --user household_id\n  streamrec validate --messages events.jsonl\n  streamrec validate events",
         _cli("validate"), "run", remedy_options.validate),
    Verb("dlq", "what was rejected, and corrected events in its place", "Counts and shows dead letters by reason and time, and sends corrected events "
         "in their place.\nEach comes once: whoever was killed in between calls it again, and what was sent is not sent twice.",
         "  streamrec dlq list --since 2h\n  streamrec dlq show --reason event_type --all --json > letters.jsonl\n  streamrec dlq redrive letters.jsonl",
         _cli("dlq"), "run", remedy_options.dlq),
    Verb("erase", "forget a user", "Has a user erased: his row, list, vector and dead letters go at once, his rows in the event log at its next compaction, "
         "and what\nKafka holds of him is passed over from now on. He may come back as a new user.\nExit codes of --verify: 0 nothing is left, 3 only what "
         "Kafka's retention removes by the date shown, 1 something else.",
         "  streamrec erase u42\n  streamrec erase --verify u42", _cli("erase"), "run", remedy_options.erase),
    Verb("hide", "take items out of all lists", "No list is made with these items from now on, readers drop them from those that are there, and these are "
         "rewritten.\nWhat was said of an item stays; --undo shows it again, --delete takes back all that was said of it.",
         "  streamrec hide i7\n  streamrec hide --undo i7", _cli("hide"), "run", remedy_options.hide),
    Verb("lookup", "show a user's list", "Reads a user's list from Redis as applications do; a user without one gets what is "
         "popular.", "  streamrec lookup u42\n  streamrec lookup --similar i7 --json", _cli("lookup"), "run", _lookup),
    Verb("demo", "real purchases through the real system", "Starts a stack and two workers, streams the Complete Journey "
         "purchases through them, shows what happens, and ends everything.", "  streamrec demo\n  streamrec demo --keep",
         _cli("demo"), "run", _demo),
    Verb("backtest", "how good the lists are, on a recorded log", "Runs a log through the very code of the workers, test-then-learn: the "
         "list that stands before each basket is scored, then the basket is absorbed.\nNeeds no server. Full ranking over all items seen so "
         "far; ties never count in favour.",
         "  streamrec backtest purchases.csv --user household --item product --time bought_at --out report\n"
         "  streamrec backtest ratings.csv --user userId --item movieId --value rating --default-type rating\n"
         "  streamrec backtest completejourney --sample 0.05 --against popular_7d\n"
         "  streamrec backtest completejourney --sample-baskets 3000\n"
         "  streamrec backtest diginetica --data ~/datasets --protocol ader\n"
         "  streamrec backtest purchases.csv --protocol lagged --lag 1m,1h,1d --out report",
         _cli("backtest"), "run", _backtest),
    Verb("bench", "measure a claim", "Runs one script of benchmarks/, each of which measures one claim and what it is "
         "compared with.", "  streamrec bench\n  streamrec bench freshness --json", _cli("bench"), "run", _bench),
    Verb("train", "train the Transformer and release it", "Keeps a log of all events in Parquet files, and trains from it: by the clock, by the number "
         "of new events, when the hit rate falls, or once by hand.\nA candidate is released when it stands the comparison with the release that is "
         "served; workers hear of it and swap.\nWith a FILE it trains on that, needs no server, and puts what stands the comparison with the store's newest "
         "into the store.\nNeeds the packages of streamrec[train]; goes on where it was broken off.",
         "  streamrec train --every 6h\n  streamrec train --once\n  streamrec train --once --set train_model=d=128,epochs=5\n"
         "  streamrec train purchases.csv --user household --item product --time bought_at --store releases\n"
         "  streamrec backtest purchases.csv --user household --item product --time bought_at --releases releases",
         _cli("train"), "run", _train),
    Verb("models", "releases of the trained model", "Shows which releases there are and which each worker serves, and has another one served: "
         "verified, announced, and swapped into all workers within seconds.",
         "  streamrec models list\n  streamrec models show 3fa2c1\n  streamrec models promote 20261122T112000Z-3fa2c1\n  streamrec models rollback",
         _cli("models"), "run", _models),
    Verb("export", "the log of events as Parquet files", "Writes all valid events that lie in Kafka into Parquet files by event day, each once. Given again it adds what has come "
         "since; it may be killed.", "  streamrec export ~/events", _cli("export"), "run", generation_options.export),
    Verb("replay", "the log once more, into a shadow", "Builds rows and lists from the log of events into a generation of its own, beside the live one and without "
         "touching it: with other settings, or from another place on.\nMakes way for live traffic. One that was stopped or killed goes on with the same name.",
         "  streamrec replay --shadow trial --settings trial.toml\n  streamrec replay --shadow week --from last=7d --speed max\n"
         "  streamrec replay --shadow trial\n  streamrec replay --shadow year --source log\n"
         "  streamrec replay --shadow autumn --source ~/events --time event --from ts=2026-09-01 --to ts=2026-12-01",
         _cli("replay"), "replay", generation_options.replay),
    Verb("shadows", "generations: list or remove them", "Shows which generations of state there are, how far each is and which is live; removes one, so that nothing is left of it.",
         "  streamrec shadows list\n  streamrec shadows drop trial", _cli("replay"), "shadows", generation_options.shadows),
    Verb("diff", "how two generations' lists differ", "Compares the lists of two generations of state: users with other lists, overlap and rank correlation, coverage, "
         "the users and items that moved most, and how the judge found each while they read the same events.",
         "  streamrec diff live trial\n  streamrec diff live trial --json", _cli("diff"), "run", generation_options.diff),
    Verb("promote", "put a shadow into use", "The shadow catches up with the log and becomes live; the workers start again as its own, and overwrite every user's list. "
         "Readers see the old list or the new one, never none and never an older one.\nCan be broken off and begun again at any time.",
         "  streamrec promote trial --dry-run\n  streamrec promote trial", _cli("replay"), "promote", generation_options.promote),
    Verb("rollback", "put the generation before into use again", "The same as promote, for the one that was live before, while it has not been dropped.",
         "  streamrec rollback", _cli("replay"), "rollback", generation_options.rollback),
    Verb("backup", "copy the state into a folder, while workers run", "Copies rows, what was learned, marks of progress, attributes, erasures and the release that is "
         "served into a new folder,\nwhole or not at all. Events are not copied: Kafka is where they are, and a backup goes on from there.",
         "  streamrec backup backups/2026-11-22\n  streamrec backup backups/trial --generation trial", _cli("backup"), "backup", backup_options.backup),
    Verb("restore", "put a backup back", "Verifies a backup whole, then puts it into an empty Redis; workers that are started after it read what has come since and end "
         "where they would\nhave been. Refuses what does not fit. One that was killed is given again; workers wait for it meanwhile.",
         "  streamrec restore backups/2026-11-22 --dry-run\n  streamrec restore backups/2026-11-22", _cli("backup"), "restore", backup_options.restore),
    Verb("settings", "list all settings", "Prints every setting: variable, value, unit, meaning, default. Secrets are "
         "hidden.", "  streamrec settings\n  streamrec settings --json", _cli("show_settings"), "run", _json),
)
