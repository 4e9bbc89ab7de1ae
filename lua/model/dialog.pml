/*
 * dialog: one question, its source and its listeners, as a model for spin.
 *
 * Each script of lua/ that a dialog needs is one atomic transition here (d_step), and compares in
 * the order of its Lua file. Around them stands what a farm can do at any moment: listeners race,
 * replies are lost and calls repeated, requests arrive late, bells are lost, leases run out, processes
 * die between two steps or in the middle of one, the dead are swept and run down; with FAILOVERS,
 * there are two primaries for a while, of which the present one never hears what the former goes on to
 * acknowledge, and each end finds the present one at a time of its own.
 *
 * Each behaviour ends: each process does so much, and what can go wrong has a number. So spin sees
 * all of them, and what must be at the end is asked where nothing can move any more.
 *
 * A failover forgets what it forgets: the former primary's own promises are not asked for. What must
 * hold all the same: the source hears one owner, nobody hears anything twice, whoever waits does not
 * wait in vain, the present primary keeps what it promised, and nothing stays behind in it.
 *
 * Left out: pools, unidirectional channels, rights and limits, bodies kept apart, the server's own
 * close, and the end of keep_closed; of a failover, lost replies, deaths and a second failover, and
 * registrations whose end was forgotten.
 *
 * LISTENERS  how many listen, 1 or 2  TURNS     questions that the source asks in one dialog
 * CALLS      what each listener tries, beside its way out
 * LOSSES     replies that are lost    LATES     of these requests, how many arrive again, any time later
 * LAPSES     leases that run out although their process lives
 * CRASHES    processes that are killed
 * FAILOVERS  0 or 1                   STRAYS    calls that the former primary still takes
 * BEGUN      1: all listen, and have the question; they only answer, one of them perhaps with its
 *            close, and nobody leaves
 * WITHOUT    the guard that is left out    ONLY  the property that alone is asked for
 */

#ifndef LISTENERS
#define LISTENERS 2
#endif
#ifndef TURNS
#define TURNS 2
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef LATES
#define LATES 0
#endif
#ifndef LAPSES
#define LAPSES 0
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef FAILOVERS
#define FAILOVERS 0
#endif
#ifndef BEGUN
#define BEGUN 0
#endif
#ifndef STRAYS
#define STRAYS 2
#endif
#ifndef WITHOUT
#define WITHOUT 0
#endif
#ifndef ONLY
#define ONLY 0
#endif

/* Properties: what must hold, whoever races, dies or forgets. */
#define one_owner 1 /* exactly one owner in each dialog, for Redis, the listeners and the source */
#define losers_told 2 /* every loser is told, and every end of a channel that somebody else closed */
#define kept_promises 3 /* every success that a client saw is in the stream or was delivered */
#define in_order 4 /* each response reaches the source once and in order, one for each question */
#define silence 5 /* nothing is delivered after a close succeeded, and of two closes one succeeds */
#define dropped_once 6 /* each handle is dropped once */
#define no_orphans 7 /* no key without an owner, after all are gone */
#define first_answer 8 /* a repeated call gets the answer of the first */
#define only_the_dead 9 /* nobody who lives is run down */

#define must(property, condition) assert((condition) || (ONLY != 0 && ONLY != property))

/* Guards: -DWITHOUT=<guard> leaves one out. Each with the form of the model in which the property
 * that stands behind it falls without it. */
#define owner_first 1 /* respond: whoever comes second is refused | race: one_owner */
#define closed_is_over 2 /* respond: a closed channel takes no answer | race: silence */
#define one_turn 3 /* respond: one answer for each question | race: in_order */
#define receipt_of_answer 4 /* respond: a repeated call gets the first answer | loss: first_answer */
#define declined_is_over 6 /* respond: who declined cannot answer | race: dropped_once */
#define dialog_is_held 7 /* respond: the owner's session holds the dialog | death: losers_told */
#define offer_withdrawn 8 /* respond, closes: the question leaves the board | race: losers_told */
#define board_retired 9 /* board: a board that nobody needs goes | race: no_orphans */
#define receipt_of_source 11 /* offer, follow_up: as for an answer | loss: first_answer */
#define source_closes_once 13 /* source_close: not after another close | race: silence */
#define receipt_of_close 14 /* source_close: a repeated call gets the first answer | loss: first_answer */
#define owner_is_known 15 /* source_close: not past an owner that the caller knows not | race: losers_told */
#define listener_closes_once 16 /* listener_close: not after another close | loss: silence */
#define loser_closes_nothing 17 /* listener_close: a loser's close is its own | race: silence */
#define receipt_of_leaving 18 /* listener_close: a repeated call gets the first answer | loss: first_answer */
#define reference_once 19 /* listener_close: a reference that was dropped counts no more | race: dropped_once */
#define dead_are_refused 20 /* guard: a session that was swept acts no more | lapse: no_orphans */
#define held_until_buried 22 /* bury: not while it holds something | death: no_orphans */
#define late_are_swept 21 /* sweep: nobody who renews | death: only_the_dead */
#define channel_is_held 24 /* open: the source's session holds the channel | death: losers_told */
#define epoch_is_known 30 /* guard: a call of an earlier epoch is refused | failover: silence */
#define last_is_known 31 /* confirm: not where the last operation was forgotten | failover: losers_told */
#define token_is_known 32 /* confirm: not where the owner was forgotten | failover: losers_told */
#define asked_again 33 /* ask: what a former primary answered is asked again | failover: kept_promises */
#define all_is_confirmed 34 /* ends: what is held is confirmed in a new epoch | failover: losers_told */
#define ended_again 35 /* ends: an end that Redis forgot is made again | failover: losers_told */
#define former_is_past 39 /* reader: what a former primary says is not heard | failover: losers_told */
#define heard_once 38 /* ends: what is said again is not heard again | failover: in_order */
#define first_is_pinned 36 /* source: the first owner that it saw is the owner | rivals: one_owner */
#define answer_decides 37 /* offer: a loss gives way to an answer that is taken | rivals: one_owner */
#define next_in_line 27 /* reader: a bell is taken if it is the next | loss: kept_promises */
#define later_look 28 /* reader: a lost bell costs time | race: losers_told */
#define closing_is_last 29 /* ends: nothing is handed out behind a close | race: silence */

#define kept(guard) (WITHOUT != guard)

#define SOURCE 0 /* ends are numbered: the source, then the listeners; each has a session of its own */
#define ENDS (LISTENERS + 1)
#define EPOCHS (FAILOVERS + 1)
#define NOBODY 0 /* as an owner */
#define MOST (TURNS + 2) /* entries of one inbox */

mtype = { absent, alive, late, dead } /* a lease */
mtype = { gone, open, offered, answered, asked, closed } /* a channel */
mtype = { OK, NO_LISTENERS, RELEASED, WAITING, CLOSED, GONE, GAP, NOT_YOURS, MOVED, ACQUIRED, DECLINED,
  IN_PROGRESS, NOT_OFFERED, NOT_OPENED, VIOLATION, HOLDS, NOT_DEAD, FORGOTTEN, EPOCH, LAPSED } /* words */
mtype = { OPEN, OFFER, RESPOND, FOLLOW_UP, LISTENER_CLOSE, SOURCE_CLOSE, REGISTER, UNREGISTER, BURY,
  CONFIRM, NONE } /* scripts that ends call */
mtype = { close, answer, release, abandon, run_down } /* kinds of close; `answer` is one with a reason */
mtype = { response, notification, closing, final } /* entries; `final` is a close that answers */
mtype = { none, by_close, by_release, told, lost, forgotten, lapsed } /* how an end, or a reference, ended */

typedef Entry {
  mtype event = none;
  byte from; /* whose it is: the owner */
  byte op;
  byte token
}

typedef Inbox {
  byte last; /* number of its last entry */
  Entry entry[MOST]
}

/* All that Redis holds of one server with one channel. */
typedef Store {
  byte epoch = 1;
  mtype lease[ENDS] = alive;
  bool stands[ENDS] = true; /* whether it has an inbox */
  bool holds_channel;
  bool holds_dialog[ENDS];
  bool holds_registration[ENDS];
  bool registered[ENDS];
  bool indexed; /* the channel, among the open ones */
  bool board; /* whether there is one */
  bool on_board; /* the question */
  mtype state = gone;
  byte op[ENDS];
  mtype word[ENDS] = none;
  mtype dropped[ENDS] = none;
  byte drops;
  byte owner;
  byte token;
  byte logged; /* answers in the conversation */
  Inbox inbox[ENDS]
}

/* With FAILOVERS there are two: the former primary, and the present one, which is what the former was
 * when they parted. Whoever has not found the present one asks the former, which serves so often yet
 * and then is gone; what it did since, nobody else knows. A step says whose Redis it means. */
#if FAILOVERS
#define FORMER 0
#define PRESENT 1
Store store[2];
hidden byte which;
bool present; /* which is the one that counts */
byte strays = STRAYS;
byte parted[ENDS]; /* entries of each inbox that both have */
bool is_past[ENDS]; /* it has read further than that, in the present one */
#define redis store[which]
#define of(primary) store[primary]
#define means(primary) which = primary
#define believed (epoch[me] - 1) /* the one that it takes for the present one */
#define reaches (believed == present || strays > 0 || !kept(epoch_is_known))
#else
Store redis;
#define of(primary) redis
#define means(primary) skip
#define present 0
#define believed 0
#define reaches true
#endif

/* What the ends know, and what befell them. */
mtype over[ENDS] = none; /* how the channel ended, for this end */
bool through[ENDS]; /* with all that its process wanted */
bool waits; /* the source does not close, and waits until it is told of the end */
bool ended[ENDS];
bool killed[ENDS];
bool has[ENDS]; /* the question, with its handle */
byte bell[ENDS]; /* that carries the question, and is still on its way; whose Redis rang it */
bool answers[ENDS]; /* its answer is on its way */
bool told_loss[ENDS]; /* meanwhile: what Redis says to the answer decides */
byte position[ENDS]; /* number of the last entry that was taken */
byte epoch[ENDS] = 1; /* that it knows */
byte seen[ENDS]; /* number of its last operation that was answered */
byte fence[ENDS]; /* the token that it knows: the owner's own; the source's pinned one */
byte pinned; /* whom the source takes for the owner */
byte heard[ENDS]; /* number of the last thing that the other end said */
byte won[EPOCHS]; /* how many listeners were told that they are the owner, by each Redis */
byte promised[ENDS]; /* the last operation of which it was told that it was accepted */
byte final_of; /* whose close that answers was accepted */
bool final_heard;
bool is_open; /* for all that the source knows */
byte asked_so_far; /* questions that were accepted */
byte first; /* whose response the source heard first */
bool subscribed[ENDS]; /* for all that the listener knows */
byte shut[EPOCHS]; /* how many ends were told that their close ended the channel, by each */
byte losses = LOSSES;
byte lates = LATES;
byte lapses = LAPSES;
byte crashes = CRASHES;

#define says(script, word) got = word

/* --- What the scripts share ---------------------------------------------------------------------
 *
 * `who` calls, or is the end in whose name a reaper calls; what is answered is `got`. In a d_step
 * the first option counts whose condition holds, as in a run of Lua's `if … then return … end`. */

#define is_dead(end) (redis.lease[end] == dead || redis.lease[end] == absent)

/* shared/guard: the first options of a script that an end calls. */
#define guards(script, who, knows) guards_if(true, script, who, knows)
#define guards_if(is_its_own, script, who, knows) \
  :: is_its_own && kept(dead_are_refused) && is_dead(who) -> says(script, LAPSED) \
  :: is_its_own && kept(epoch_is_known) && knows != redis.epoch -> says(script, EPOCH) \
  :: is_its_own && redis.lease[who] == late -> says(script, LAPSED)

#define is_other(who) (redis.owner != NOBODY && redis.owner != who)
#define next_number(who, number) (redis.op[who] + 1 == number)
#define repeats(who, number) (redis.op[who] == number && number != 0)

/* shared/append: an entry for one process; one that was buried has no inbox, and gets none. */
inline tell(end, what, whose, number, mark) {
  if
  :: !redis.stands[end]
  :: redis.stands[end] && redis.inbox[end].last == MOST -> assert(WITHOUT)
  :: else ->
    must(silence, redis.state != closed || what == closing || what == final);
    redis.inbox[end].entry[redis.inbox[end].last].event = what;
    redis.inbox[end].entry[redis.inbox[end].last].from = whose;
    redis.inbox[end].entry[redis.inbox[end].last].op = number;
    redis.inbox[end].entry[redis.inbox[end].last].token = mark;
    redis.inbox[end].last++
  fi
}

/* Somebody, everybody. (Spin knows no quantifiers.) */
#if LISTENERS == 1
#define anybody(what) (what[1])
#define each_end(option) option(0) option(1)
#define is_anybody(what) (what(0) || what(1))
#define all_through (through[0] && through[1])
#elif LISTENERS == 2
#define anybody(what) (what[1] || what[2])
#define each_end(option) option(0) option(1) option(2)
#define is_anybody(what) (what(0) || what(1) || what(2))
#define all_through (through[0] && through[1] && through[2])
#else
#error "LISTENERS is 1 or 2"
#endif

inline retire() {
  if
  :: kept(board_retired) && !redis.on_board && !anybody(redis.registered) -> redis.board = false
  :: else
  fi
}

/* shared/board */
inline withdraw() {
  if
  :: kept(offer_withdrawn) -> redis.on_board = false; retire()
  :: else
  fi
}

inline own(who) {
  must(one_owner, redis.owner == NOBODY);
  redis.owner = who;
  redis.token = redis.epoch * ENDS + who
}

inline drop(end, how) {
  must(dropped_once, redis.dropped[end] == none);
  redis.dropped[end] = how;
  redis.drops++
}

/* --- The scripts --------------------------------------------------------------------------------- */

inline open_channel(who, knows, got) {
  if
  guards(open, who, knows)
  :: redis.state != gone -> says(open, OK)
  :: else ->
    redis.state = open; redis.op[who] = 0; redis.indexed = true;
    redis.holds_channel = kept(channel_is_held);
    says(open, OK)
  fi
}

inline register(who, knows, got) {
  if
  guards(register, who, knows)
  :: else ->
    redis.registered[who] = true; redis.holds_registration[who] = true; redis.board = true;
    says(register, OK)
  fi
}

inline unregister(who, knows, kind, got) {
  if
  guards_if(kind != run_down, unregister, who, knows)
  :: kind == run_down && !is_dead(who) -> says(unregister, NOT_YOURS)
  :: else ->
    if
    :: !redis.registered[who] && kind != run_down
    :: else -> redis.holds_registration[who] = false
    fi;
    if
    :: !redis.registered[who] -> says(unregister, GONE)
    :: else ->
      must(only_the_dead, kind != run_down || is_dead(who));
      redis.registered[who] = false; retire();
      says(unregister, OK)
    fi
  fi
}

inline offer(who, knows, number, got) {
  if
  guards(offer, who, knows)
  :: redis.state == gone -> says(offer, GONE)
  :: kept(receipt_of_source) && repeats(who, number) -> got = redis.word[who]
  :: !next_number(who, number) -> says(offer, GAP)
  :: redis.state == closed -> says(offer, CLOSED)
  :: redis.state != open -> says(offer, WAITING)
  :: else ->
    if
    :: anybody(redis.registered) -> says(offer, OK)
    :: else -> says(offer, NO_LISTENERS)
    fi;
    redis.state = offered; redis.op[who] = number; redis.word[who] = got;
    redis.on_board = true; redis.board = true;
    asked_so_far++;
    for (other : 1 .. LISTENERS) { bell[other] = (redis.registered[other] -> redis.epoch : 0) }
  fi
}

inline respond(who, knows, number, got) {
  if
  guards(respond, who, knows)
  :: redis.state == gone -> says(respond, GONE)
  :: kept(receipt_of_answer) && redis.owner != NOBODY && repeats(who, number) ->
    got = redis.word[who]
  :: kept(owner_first) && is_other(who) -> says(respond, ACQUIRED)
  :: kept(closed_is_over) && redis.state == closed -> says(respond, CLOSED)
  :: kept(declined_is_over) && redis.dropped[who] != none -> says(respond, DECLINED)
  :: !next_number(who, number) -> says(respond, GAP)
  :: kept(one_turn) && redis.state == answered -> says(respond, IN_PROGRESS)
  :: redis.state == open -> says(respond, NOT_OFFERED)
  :: else ->
    if
    :: redis.owner != who -> own(who); redis.holds_dialog[who] = kept(dialog_is_held); withdraw()
    :: else
    fi;
    tell(SOURCE, response, who, number, redis.token);
    redis.state = answered; redis.op[who] = number; redis.word[who] = OK;
    redis.logged++;
    says(respond, OK)
  fi
}

inline follow_up(who, knows, number, got) {
  if
  guards(follow_up, who, knows)
  :: redis.state == gone -> says(follow_up, GONE)
  :: kept(receipt_of_source) && repeats(who, number) -> got = redis.word[who]
  :: !next_number(who, number) -> says(follow_up, GAP)
  :: redis.state == closed -> says(follow_up, CLOSED)
  :: redis.state != answered -> says(follow_up, WAITING)
  :: redis.token != fence[who] -> says(follow_up, NOT_YOURS)
  :: else ->
    tell(redis.owner, notification, redis.owner, number, 0);
    redis.state = asked; redis.op[who] = number; redis.word[who] = OK;
    asked_so_far++;
    says(follow_up, OK)
  fi
}

/* One end of a listener is over: the channel goes on without it, or was over before. */
inline finish(who, number, kind, how) {
  redis.holds_dialog[who] = false;
  redis.op[who] = number; redis.word[who] = how;
  if
  :: kept(reference_once) && redis.dropped[who] != none -> redis.dropped[who] = by_release
  :: else -> drop(who, (kind == close || kind == answer -> by_close : by_release))
  fi
}

inline listener_close(who, knows, number, kind, got) {
  if
  guards_if(kind != run_down, listener_close, who, knows)
  :: kind == run_down && !is_dead(who) -> says(listener_close, NOT_YOURS)
  :: else ->
    if
    :: kind == run_down || kind == abandon || redis.state == gone || redis.state == closed ->
      redis.holds_dialog[who] = false
    :: else
    fi;
    if
    :: redis.state == gone -> says(listener_close, GONE)
    :: kept(receipt_of_leaving) && repeats(who, number) -> got = redis.word[who]
    :: kind != run_down && kind != abandon && !next_number(who, number) && redis.state != closed ->
      says(listener_close, GAP)
    :: (kind == run_down || kind == abandon) && redis.owner != who -> says(listener_close, OK)
    :: kind == release && redis.dropped[who] == by_close ->
      finish(who, number, kind, RELEASED); says(listener_close, RELEASED)
    :: kind == release && redis.dropped[who] != none -> says(listener_close, VIOLATION)
    :: kept(loser_closes_nothing) && is_other(who) && kind == release ->
      finish(who, number, kind, RELEASED); says(listener_close, RELEASED)
    :: kept(loser_closes_nothing) && is_other(who) && redis.dropped[who] != none ->
      says(listener_close, CLOSED)
    :: kept(loser_closes_nothing) && is_other(who) ->
      finish(who, number, kind, ACQUIRED); says(listener_close, ACQUIRED)
    :: kept(listener_closes_once) && redis.state == closed && kind == release ->
      says(listener_close, VIOLATION)
    :: kept(listener_closes_once) && redis.state == closed -> says(listener_close, CLOSED)
    :: redis.dropped[who] != none -> says(listener_close, DECLINED)
    :: redis.state == open -> says(listener_close, NOT_OFFERED)
    :: kind == release && redis.state == answered -> says(listener_close, VIOLATION)
    :: redis.state == offered && kind == release ->
      finish(who, number, kind, RELEASED); says(listener_close, RELEASED)
    :: redis.state == offered && kind == close ->
      finish(who, number, kind, OK); says(listener_close, OK)
    :: else ->
      must(only_the_dead, kind != run_down || is_dead(who));
      redis.indexed = false; redis.holds_channel = false;
      if
      :: kind == release -> finish(who, number, kind, RELEASED); says(listener_close, RELEASED)
      :: else -> finish(who, number, kind, OK); says(listener_close, OK)
      fi;
      drop(SOURCE, told);
      if
      :: redis.state == offered -> own(who); withdraw()
      :: else
      fi;
      redis.state = closed;
      tell(SOURCE, (kind == answer -> final : closing), who, number, redis.token)
    fi
  fi
}

inline source_close(who, knows, number, kind, known, got) {
  if
  guards_if(kind != run_down, source_close, who, knows)
  :: kind == run_down && !is_dead(who) -> says(source_close, NOT_YOURS)
  :: redis.state == gone && kind == run_down -> redis.holds_channel = false; says(source_close, GONE)
  :: redis.state == gone -> says(source_close, GONE)
  :: kept(receipt_of_close) && kind != run_down && repeats(who, number) -> got = redis.word[who]
  :: kind != run_down && kind != abandon && !next_number(who, number) -> says(source_close, GAP)
  :: kind == release && redis.dropped[who] == by_close ->
    redis.holds_channel = false;
    redis.op[who] = number; redis.word[who] = RELEASED; redis.dropped[who] = by_release;
    says(source_close, RELEASED)
  :: kind == release && redis.state == closed -> says(source_close, VIOLATION)
  :: kept(source_closes_once) && redis.state == closed ->
    redis.holds_channel = redis.holds_channel && kind != run_down;
    says(source_close, CLOSED)
  :: kind == close && redis.state == open -> says(source_close, NOT_OPENED)
  :: kind == release && redis.state == offered && redis.word[who] != NO_LISTENERS ->
    says(source_close, VIOLATION)
  :: kind == release && redis.state == asked -> says(source_close, VIOLATION)
  :: kept(owner_is_known) && redis.owner != NOBODY && redis.owner != known -> says(source_close, MOVED)
  :: else ->
    must(only_the_dead, kind != run_down || is_dead(who));
    redis.indexed = false; redis.holds_channel = false;
    if
    :: kind == close -> redis.op[who] = number; redis.word[who] = OK; says(source_close, OK)
    :: kind == release ->
      redis.op[who] = number; redis.word[who] = RELEASED; says(source_close, RELEASED)
    :: else -> says(source_close, OK)
    fi;
    drop(who, (kind == close -> by_close : by_release));
    if
    :: redis.state == offered -> withdraw()
    :: else
    fi;
    redis.state = closed;
    if
    :: known != NOBODY && redis.owner != NOBODY ->
      redis.holds_dialog[known] = false;
      drop(known, told);
      tell(known, closing, known, number, 0)
    :: else
    fi
  fi
}

/* renew: the living keep their lease, however often; what counts is who is refused. */
inline renew(who, knows, got) {
  if
  guards(renew, who, knows)
  :: else -> redis.lease[who] = alive; says(renew, OK)
  fi
}

/* The late are marked, all at once; and so are those that renew no more. */
#define lease_of(who) of(present).lease[who]
#define is_late(who) (lease_of(who) == late || lease_of(who) == alive && ended[who])
#define is_silent(who) (is_late(who) || !kept(late_are_swept) && lease_of(who) == alive)

inline sweep() {
  for (other : 0 .. LISTENERS) {
    if
    :: is_silent(other) -> must(only_the_dead, is_late(other)); redis.lease[other] = dead
    :: else
    fi
  }
}

#define holds(who) \
  ((who == SOURCE && redis.holds_channel) || redis.holds_dialog[who] || redis.holds_registration[who])

inline bury(who, knows, kind, got) {
  if
  guards_if(kind != run_down, bury, who, knows)
  :: kind == run_down && !is_dead(who) -> says(bury, NOT_DEAD)
  :: kept(held_until_buried) && holds(who) -> says(bury, HOLDS)
  :: else ->
    must(losers_told, kind != run_down || redis.state == closed || redis.state == gone ||
      (who != SOURCE && redis.owner != who));
    for (other : 0 .. MOST - 1) {
      redis.inbox[who].entry[other].event = none;
      redis.inbox[who].entry[other].from = 0;
      redis.inbox[who].entry[other].op = 0;
      redis.inbox[who].entry[other].token = 0
    }
    redis.inbox[who].last = 0; position[who] = 0;
    redis.stands[who] = false; redis.lease[who] = absent;
    says(bury, OK)
  fi
}

inline confirm(who, knows, got) {
  if
  guards(confirm, who, knows)
  :: redis.state == gone -> says(confirm, GONE)
  :: kept(last_is_known) && redis.op[who] < seen[who] -> says(confirm, FORGOTTEN)
  :: kept(token_is_known) && fence[who] != 0 && redis.token != fence[who] -> says(confirm, FORGOTTEN)
  :: else -> says(confirm, OK)
  fi
}

inline source_calls(who, script, knows, number, kind, known, got) {
  if
  :: script == OPEN -> open_channel(who, knows, got)
  :: script == OFFER -> offer(who, knows, number, got)
  :: script == FOLLOW_UP -> follow_up(who, knows, number, got)
  :: script == SOURCE_CLOSE -> source_close(who, knows, number, kind, known, got)
  fi
}

inline listener_calls(who, script, knows, number, kind, got) {
  if
  :: script == REGISTER -> register(who, knows, got)
  :: script == UNREGISTER -> unregister(who, knows, kind, got)
  :: script == RESPOND -> respond(who, knows, number, got)
  :: script == LISTENER_CLOSE -> listener_close(who, knows, number, kind, got)
  fi
}

/* --- The ends ------------------------------------------------------------------------------------ */

#if LATES
/* A request that was taken for lost, and arrives all the same: nobody hears its answer. */
proctype Late(byte me; byte script; byte knows; byte number; byte kind; byte known) {
  mtype got;
  byte other;
  d_step {
    means(present);
    if
    :: me == SOURCE -> source_calls(me, script, knows, number, kind, known, got)
    :: else -> listener_calls(me, script, knows, number, kind, got)
    fi;
    got = none; other = 0
  };
end:
  false
}
#endif

/* How an end asks: the answer comes later, and brings the token. */
#if FAILOVERS
#define arrives \
  if \
  :: believed != present && strays > 0 -> means(FORMER); strays-- \
  :: else -> means(present) \
  fi
#else
#define arrives skip
#endif
#define call(what, how) script = what; kind = how
#define called asked_in = epoch[me]; mark = redis.token; other = 0

#define is_idle (script == NONE)
#define is_free (is_idle && reaches)
#define is_replaced (kept(asked_again) && asked_in != epoch[me]) /* the answer is a former Redis's */
#define is_answered (script != NONE && got != EPOCH && got != MOVED && !is_replaced)

#if LATES
#define run_late run Late(me, script, epoch[me], number, kind, known)
#else
#define run_late skip
#endif

/* Before the answer: Redis is another one, the owner was unknown, the reply is lost; each time the
 * same call is made again. */
#define calls_again \
  :: script != NONE && is_replaced && reaches \
  :: got == MOVED && !is_replaced && reaches -> known = of(believed).owner \
  :: script != NONE && losses > 0 && !is_replaced && reaches -> losses-- \
  :: script != NONE && losses > 0 && lates > 0 && !is_replaced && reaches -> \
    losses--; lates--; run_late

inline forget_call() {
  script = NONE; kind = close; got = none; number = 0; known = 0; asked_in = epoch[me]; mark = 0
}

/* Redis has it, and not only one that has been replaced. */
#define is_there(what) (believed != present || of(present).what)
#define shuts shut[believed]++; must(silence, shut[believed] <= 1)

inline end_here(how) {
  if
  :: over[me] == none -> over[me] = how
  :: else
  fi
}

/* Whoever is through, and was not killed, leaves when all are, one after the other. */
inline leave() {
  atomic {
    killed[me] || (!BEGUN && all_through && (me == SOURCE || ended[me - 1])) ->
    if
    :: killed[me]
    :: else -> d_step { means(present); bury(me, redis.epoch, close, got) }
    fi;
    got = none; other = 0; subscribed[me] = false; bell[me] = 0; has[me] = false;
    ended[me] = true
  };
end:
  false
}

/* What an answer means to the source. */
inline source_heard() {
  if
  :: got == OK && script == OPEN -> is_open = true
  :: got == OK && script != OPEN && kind != abandon || got == NO_LISTENERS || got == RELEASED ->
    seen[me] = number;
    if
    :: script == SOURCE_CLOSE && over[me] == by_close -> over[me] = by_release
    :: script == SOURCE_CLOSE && over[me] != by_close ->
      shuts;
      end_here((kind == close -> by_close : by_release))
    :: else -> must(kept_promises, is_there(op[me] >= number)); questions++; promised[me] = number
    fi
  :: got == GAP -> must(first_answer, present); gives_up = true
  :: got == GONE || got == OK && kind == abandon -> must(first_answer, present); end_here(forgotten)
  :: got == CLOSED -> is_over = true
  :: got == LAPSED -> end_here(lapsed)
  :: else
  fi;
  forget_call()
}

#define is_asking (is_free && over[me] == none && !is_over && is_open && !gives_up)

proctype Source() {
  byte me = SOURCE, number, known, tries = TURNS - BEGUN, questions = BEGUN, asked_in = 1, mark, other;
  mtype script = NONE, kind = close, got = none;
  bool is_over, gives_up;

  do
  :: atomic {
      if
      :: is_free && over[me] == none && !is_over && !is_open -> call(OPEN, close)
      :: is_asking && questions == 0 -> call(OFFER, close); number = seen[me] + 1
      :: is_asking && questions > 0 && questions < TURNS && fence[me] != 0 && tries > 0 ->
        tries--; call(FOLLOW_UP, close); number = seen[me] + 1
      :: is_asking && questions > 0 -> call(SOURCE_CLOSE, close); number = seen[me] + 1
      :: is_asking && questions == 0 && tries > 0 ->
        tries--; call(SOURCE_CLOSE, close); number = seen[me] + 1
      :: is_asking && tries > 0 -> tries--; call(SOURCE_CLOSE, release); number = seen[me] + 1
      :: is_free && over[me] == by_close && tries > 0 ->
        tries--; call(SOURCE_CLOSE, release); number = seen[me] + 1
      :: is_free && gives_up -> gives_up = false; call(SOURCE_CLOSE, abandon)
      calls_again
      fi;
      if
      :: got != MOVED -> known = pinned
      :: else
      fi;
      d_step { arrives; source_calls(me, script, epoch[me], number, kind, known, got); called } }
  :: d_step { is_answered -> source_heard() }
  :: atomic { crashes > 0 -> crashes--; killed[me] = true; break }
#if FAILOVERS
  :: atomic { is_idle && is_open && over[me] == none && !gives_up ->
      waits = true; tries = 0; questions = 0; forget_call() };
end_wait:
    atomic { over[me] != none -> waits = false; break }
#endif
  :: atomic { is_idle && over[me] != none && !gives_up -> break }
  od;
  atomic { tries = 0; questions = 0; is_over = false; gives_up = false; forget_call(); through[me] = true };
end_leave:
  leave()
}

inline win() {
  if
  :: fence[me] == 0 -> won[believed]++; must(one_owner, won[believed] <= 1); fence[me] = mark
  :: else
  fi
}

/* What an answer means to a listener. */
inline listener_heard() {
  if
  :: script == REGISTER || script == UNREGISTER -> subscribed[me] = (script == REGISTER && got == OK)
  :: script == RESPOND && got == OK ->
    seen[me] = number; promised[me] = number;
    must(kept_promises, is_there(logged >= number));
    win(); told_loss[me] = told_loss[me] && !kept(answer_decides)
  :: script == LISTENER_CLOSE && kind != abandon && (got == OK || got == RELEASED || got == ACQUIRED) ->
    seen[me] = number;
    if
    :: got == OK && kind == answer -> win(); final_of = me
    :: else
    fi;
    if
    :: (fence[me] != 0 || got == OK && kind == answer) && over[me] != by_close -> shuts
    :: else
    fi;
    if
    :: over[me] == by_close || kind == release && over[me] == none -> over[me] = by_release
    :: else -> end_here(by_close)
    fi
  :: script == RESPOND && got == ACQUIRED -> end_here(lost)
  :: got == GAP -> must(first_answer, present); gives_up = true
  :: got == GONE || kind == abandon -> must(first_answer, present); end_here(forgotten)
  :: got == NOT_OFFERED -> must(first_answer, present); has[me] = false; told_loss[me] = false
  :: got == LAPSED -> end_here(lapsed)
  :: else
  fi;
  if
  :: told_loss[me] -> end_here(lost)
  :: else
  fi;
  answers[me] = false; told_loss[me] = false; forget_call()
}

#define is_acting \
  (is_free && has[me] && calls > 0 && !gives_up && \
   (over[me] == none || over[me] == lost || over[me] == by_close))

proctype Listener(byte me) {
  byte number, known, calls = CALLS, asked_in = 1, mark, other;
  mtype script = NONE, kind = close, got = none;
  bool is_here = BEGUN, gives_up;

end_listen:
  do
  :: atomic {
      if
      :: is_free && !is_here -> is_here = true; call(REGISTER, close)
      :: is_acting ->
        calls--; call(RESPOND, close); number = seen[me] + 1; answers[me] = true;
        if
        :: over[me] == lost -> over[me] = none; told_loss[me] = true /* perhaps Redis forgot to whom */
        :: else
        fi
      :: is_acting && (!BEGUN || me == LISTENERS) && over[me] == none ->
        calls--; call(LISTENER_CLOSE, answer); number = seen[me] + 1
      :: is_acting && !BEGUN && over[me] != by_close ->
        calls--; call(LISTENER_CLOSE, close); number = seen[me] + 1
      :: is_acting -> calls--; call(LISTENER_CLOSE, release); number = seen[me] + 1
      :: is_free && !BEGUN && subscribed[me] && calls > 0 -> calls--; call(UNREGISTER, close)
      :: is_free && gives_up -> gives_up = false; call(LISTENER_CLOSE, abandon)
      calls_again
      fi;
      d_step { arrives; listener_calls(me, script, epoch[me], number, kind, got); called } }
  :: d_step { is_answered -> listener_heard() }
  :: atomic { crashes > 0 -> crashes--; killed[me] = true; break }
  :: atomic { is_idle && is_here && !gives_up && (over[me] != none || !has[me]) ->
      end_here(by_release); break }
  od;
  atomic {
    calls = 0; is_here = false; gives_up = false; answers[me] = false; told_loss[me] = false;
    forget_call(); through[me] = true };
end_leave:
  leave()
}

/* --- What an end reads, beside what it asks ------------------------------------------------------ */

#define heard_now redis.inbox[me].entry[position[me]]
#define is_unread(primary) (reads(primary) && place(primary) < of(primary).inbox[me].last)
#if FAILOVERS
/* What the former one still says is not for those who know the present one. */
#define reads(primary) \
  (primary == PRESENT -> present : believed == FORMER || !kept(former_is_past))
#define place(primary) \
  (primary == FORMER -> (is_past[me] -> MOST : position[me]) : \
   (is_past[me] || position[me] < parted[me] -> position[me] : parted[me]))
#else
#define reads(primary) true
#define place(primary) position[me]
#endif
#if WITHOUT == later_look
byte unheard[ENDS]; /* whose bells were lost */
#define is_heard (of(0).inbox[me].last > unheard[me])
#else
#define is_heard true
#endif

inline source_takes() {
  if
  :: kept(closing_is_last) && over[me] != none
  :: kept(first_is_pinned) && fence[me] != 0 && heard_now.token != 0 && heard_now.token != fence[me]
  :: else ->
    if
    :: kept(heard_once) && heard_now.event == response && heard_now.op <= heard[me]
    :: heard_now.event == response ->
      must(silence, over[me] == none);
      must(in_order, heard_now.op == heard[me] + 1 && heard_now.op <= asked_so_far);
      must(one_owner, first == NOBODY || first == heard_now.from);
      heard[me] = heard_now.op; first = heard_now.from;
      fence[me] = heard_now.token; pinned = heard_now.from
    :: heard_now.event == final ->
      must(silence, over[me] == none);
      must(one_owner, first == NOBODY || first == heard_now.from);
      must(in_order, !final_heard);
      final_heard = true; first = heard_now.from; over[me] = told
    :: heard_now.event == closing -> end_here(told)
    fi
  fi
}

inline listener_takes() {
  if
  :: kept(closing_is_last) && over[me] != none
  :: else ->
    if
    :: kept(heard_once) && heard_now.event == notification && heard_now.op <= heard[me]
    :: heard_now.event == notification ->
      must(silence, over[me] == none);
      must(in_order, heard_now.op > heard[me]);
      heard[me] = heard_now.op
    :: heard_now.event == closing -> end_here(told)
    fi
  fi
}

inline takes(primary) {
  means(primary); position[me] = place(primary);
  if
  :: me == SOURCE -> source_takes()
  :: else -> listener_takes()
  fi;
  position[me]++;
#if FAILOVERS
  is_past[me] = (primary == PRESENT && position[me] > parted[me])
#endif
}

/* The board, by a bell, which may be old, or by a look; and a question that is on it no more: what
 * became of it? */
#define looks(primary) \
  :: d_step { !ended[me] && is_heard && is_unread(primary) -> takes(primary) } \
  :: d_step { reads(primary) && subscribed[me] && !has[me] && over[me] == none && \
      (of(primary).on_board || bell[me] == primary + 1) -> has[me] = true; bell[me] = 0 } \
  :: d_step { reads(primary) && has[me] && over[me] == none && !told_loss[me] && !ended[me] && \
      !of(primary).on_board && of(primary).owner != me && of(primary).state != offered -> \
      bell[me] = 0; \
      if \
      :: of(primary).state == gone || of(primary).state == open -> has[me] = false \
      :: of(primary).owner != NOBODY && answers[me] -> told_loss[me] = true \
      :: of(primary).owner != NOBODY && !answers[me] -> over[me] = lost \
      :: else -> over[me] = told \
      fi }

#if FAILOVERS
hidden Store nothing;

inline copy(to, what) {
  to.epoch = what.epoch; to.holds_channel = what.holds_channel; to.indexed = what.indexed;
  to.board = what.board; to.on_board = what.on_board; to.state = what.state; to.drops = what.drops;
  to.owner = what.owner; to.token = what.token; to.logged = what.logged;
  for (other : 0 .. LISTENERS) {
    to.lease[other] = what.lease[other]; to.stands[other] = what.stands[other];
    to.holds_dialog[other] = what.holds_dialog[other];
    to.holds_registration[other] = what.holds_registration[other];
    to.registered[other] = what.registered[other];
    to.op[other] = what.op[other]; to.word[other] = what.word[other];
    to.dropped[other] = what.dropped[other];
    to.inbox[other].last = what.inbox[other].last;
    for (entry : 0 .. MOST - 1) {
      to.inbox[other].entry[entry].event = what.inbox[other].entry[entry].event;
      to.inbox[other].entry[entry].from = what.inbox[other].entry[entry].from;
      to.inbox[other].entry[entry].op = what.inbox[other].entry[entry].op;
      to.inbox[other].entry[entry].token = what.inbox[other].entry[entry].token
    }
  }
}

#define asks_former(end) (epoch[end] == 1 && !ended[end])

/* What an end gives up, it ends in Redis, too: whoever is at the other end is told. */
inline abandons() {
  if
  :: me == SOURCE -> known = redis.owner; source_close(me, epoch[me], 0, abandon, known, got)
  :: else -> listener_close(me, epoch[me], 0, abandon, got)
  fi
}

inline confirms() {
  means(present);
  if
  :: kept(all_is_confirmed) && over[me] == none && (me == SOURCE -> is_open : seen[me] > 0) ->
    confirm(me, epoch[me], got);
    if
    :: got == FORGOTTEN || got == GONE -> abandons(); end_here(forgotten)
    :: else
    fi
  :: kept(ended_again) && over[me] != none && !answers[me] -> abandons()
  :: else
  fi;
  if /* nobody asks the former one any more: it does not matter what it held */
  :: kept(former_is_past) && !is_anybody(asks_former) ->
    strays = 0; copy(store[FORMER], nothing)
  :: else
  fi;
  known = 0; got = none; other = 0; entry = 0
}
#endif

proctype Reader(byte me) {
  byte known, other, entry;
  mtype got;
end:
  do
  looks(0)
#if FAILOVERS
  looks(PRESENT)
#endif
#if WITHOUT == next_in_line
  :: d_step { is_unread(0) && position[me] + 1 < of(0).inbox[me].last -> position[me]++ }
#endif
#if WITHOUT == later_look
  :: d_step { is_unread(0) && is_heard -> unheard[me] = of(0).inbox[me].last }
#endif
  :: d_step { /* it is paused, and its lease runs out */
      lapses > 0 && of(present).lease[me] == alive && !ended[me] ->
      lapses--; of(present).lease[me] = late }
  :: d_step { /* who does not act finds out by renewing */
      of(present).lease[me] != alive && !ended[me] && over[me] == none ->
      means(present); renew(me, epoch[me], got);
      if
      :: got == LAPSED -> over[me] = lapsed
      :: else
      fi;
      got = none }
#if FAILOVERS
  :: d_step { /* it finds the present one, which may have forgotten what the former acknowledged */
      believed != present && !ended[me] ->
      epoch[me]++; promised[me] = 0; final_of = (final_of == me -> NOBODY : final_of) };
    d_step { confirms() }
#endif
  od
}

/* --- What befalls them --------------------------------------------------------------------------- */

/* Any living process: it marks the dead, and ends one after the other what they held. */
#define is_to_be_run_down(who) :: of(present).lease[who] == dead -> me = who

proctype Reaper() {
  byte me, known, other;
  mtype got = none;
end:
  do
  :: d_step { is_anybody(is_silent) -> means(present); sweep(); other = 0 }
  :: if
    each_end(is_to_be_run_down)
    fi;
    do
    :: me == SOURCE && of(present).holds_channel ->
      known = of(present).owner;
      d_step { means(present); source_close(me, 0, 0, run_down, known, got); known = 0 };
      if
      :: got != MOVED -> break
      :: else
      fi
    :: else -> break
    od;
    if
    :: me != SOURCE && of(present).holds_registration[me] ->
      d_step { means(present); unregister(me, 0, run_down, got) }
    :: else
    fi;
    if
    :: me != SOURCE && of(present).holds_dialog[me] ->
      d_step { means(present); listener_close(me, 0, of(present).op[me] + 1, run_down, got) }
    :: else
    fi;
    d_step { means(present); bury(me, 0, run_down, got); me = 0; other = 0; got = none }
  od
}

#if FAILOVERS
proctype Failover() {
  byte other, entry;
  d_step {
    copy(store[PRESENT], store[FORMER]); store[PRESENT].epoch++; present = PRESENT;
    for (other : 0 .. LISTENERS) { parted[other] = store[FORMER].inbox[other].last }
    other = 0; entry = 0
  }
}
#endif

/* --- The end ------------------------------------------------------------------------------------- */

/* Whoever waits for the other end has one, and whoever has a question may answer it. */
inline check_waits() {
  must(losers_told, redis.state != gone && redis.state != closed);
  must(losers_told, redis.op[SOURCE] >= seen[SOURCE]);
  must(losers_told, redis.token == fence[SOURCE]);
  for (one : 1 .. LISTENERS) {
    must(losers_told, over[one] != none || !has[one] ||
      (fence[one] != 0 && redis.token == fence[one]) || (fence[one] == 0 && redis.state == offered))
  }
}

/* What the ends know of a dialog that is over. */
inline check_dialog() {
  for (one : 0 .. LISTENERS) {
    must(losers_told, through[one]);
    if
    :: !killed[SOURCE] && over[SOURCE] == told ->
      must(kept_promises, one == SOURCE || (present && pinned != one) || promised[one] <= heard[SOURCE])
    :: else
    fi;
    if
    :: one != SOURCE && fence[one] != 0 && !killed[one] && over[one] == told ->
      must(kept_promises, promised[SOURCE] <= 1 || promised[SOURCE] <= heard[one])
    :: else
    fi
  }
  must(kept_promises, killed[SOURCE] || over[SOURCE] != told || final_heard || final_of == NOBODY);
  must(one_owner, redis.owner == NOBODY || over[redis.owner] != lost)
}

/* What Redis holds when all have left. */
inline check() {
  for (one : 0 .. LISTENERS) {
    must(losers_told, ended[one]);
    must(no_orphans, !ended[one] || (redis.lease[one] == absent && !redis.stands[one] && !holds(one) &&
      !redis.registered[one]));
    if
    :: redis.dropped[one] != none -> dropped++
    :: else
    fi
  }
  must(no_orphans, redis.state == gone || redis.state == closed);
  must(no_orphans, !redis.indexed && !redis.board && !redis.on_board);
  must(dropped_once, redis.drops == dropped);
  must(dropped_once, redis.state == gone || redis.dropped[SOURCE] != none);
  must(dropped_once, redis.owner == NOBODY || redis.dropped[redis.owner] != none)
}

/* All listen, and have the question. */
inline begin() {
  open_channel(SOURCE, 1, got);
  for (one : 1 .. LISTENERS) { register(one, 1, got); subscribed[one] = true; has[one] = true }
  offer(SOURCE, 1, 1, got);
  for (one : 1 .. LISTENERS) { bell[one] = 0 }
  is_open = true; seen[SOURCE] = 1; promised[SOURCE] = 1; got = none; other = 0
}

init {
  byte one, dropped;
  atomic {
#if BEGUN
    byte other; mtype got;
    d_step { means(0); begin() };
#endif
    for (one : 1 .. LISTENERS) { run Listener(one) }
    for (one : 0 .. LISTENERS) { run Reader(one) }
    run Source(); run Reaper();
#if FAILOVERS
    run Failover();
#endif
    one = 0
  }
  timeout -> d_step {
    means(present);
    if
    :: waits -> check_waits()
    :: !waits && BEGUN -> check_dialog()
    :: else -> check_dialog(); check()
    fi }
}
