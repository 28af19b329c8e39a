// SPDX-License-Identifier: Apache-2.0
/* DESIGN section 5 as a model: the primary alder (0), the backup birch (1) and
 * the arbiter. The table of the lease is the code's own: docs/model/check makes
 * table.pml from heartbeat/lease.c. What the agents do around it is modelled:
 * a session that is first in, first out and can be lost, an epoch as one
 * message, requests to the arbiter that are lost, delivered twice, late and in
 * any order, answers that are lost and late.
 *
 * Timers may expire whenever there is a reason: the peer is lost, or a stall
 * (LOSSES and STALLS are budgets; PATIENCE is that of lost messages). A lost
 * component may come back or not. Polling is modelled as being told of a
 * change, so that every run ends, and where it ends the VM has to run.
 *
 * Protection may end and begin again while alder's guest runs (ENDS): birch is
 * told to give its replica up, or alder goes on alone when it does not answer;
 * the agent ends with a LEAVE that may be lost; the daemon asks for the number,
 * and its REGISTER of that number, typed again until it is answered, begins the
 * next.
 *
 * SAFE is checked at every step, that is: never two runners, and what runs has
 * all that the outside has seen. GOAL is checked where a run ends. */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef STALLS
#define STALLS 1
#endif
#ifndef PATIENCE
#define PATIENCE 1
#endif
#ifndef FAILURES
#define FAILURES 1
#endif

#ifndef ENDS
#define ENDS 0
#endif

#define P 0
#define B 1
#define NOBODY 2

mtype = { FREE, GUARDED, ASKING, YIELDED, FENCED,
          EMPTY, STANDBY, CLAIMING, WAITING, WON, VOID, LOST,
          SETTLING, RETURNING }
mtype = { COMMIT, GRANTED, REFUSED, DENIED, DISCARDED, FORCED, STARTED,
          FAILED, UNSURE, NOEVENT }
mtype = { NOTHING, ASK, RELEASE, PAUSE, FENCE, TAKEOVER, DISCARD }
mtype = { NONE, CLAIM, RUNNING, RETURN, QUERY, REGISTER, LEAVE }
mtype = { HELLO, EPOCH, ACK, GIVEUP, GIVENUP }

typedef lease {
	mtype state;
	byte generation;
	mtype op;      /* the request that is outstanding */
	byte opgen;
	bit sent;
	byte nonce;    /* of the last claim */
	byte seen      /* the arbiter's record as last answered: see version */
};
lease l[2];

/* The arbiter's record. */
byte generation = 1;
byte holder = P;
byte nonce;            /* 0: registered, or handed over */
bit running = 1;
byte version = 1;      /* changes of the record */

/* The world. */
bit up[2] = 1;         /* the host */
bit agent[2] = 1;      /* its agent */
bit link = 1;
bit arbiter = 1;
bit path[2] = 1;       /* from a host to the arbiter */
byte losses = LOSSES;
byte stalls = STALLS;
byte patience = PATIENCE;
byte lost;
bit unprotected;       /* the VM was, when something was lost */
byte failures = FAILURES; /* of starting the replica */

bit guest = 1;         /* alder's: there, */
bit paused;            /* and paused */
bit started;           /* birch's runs */
byte flows;             /* how often alder's output has flowed freely */
byte ends = ENDS;
bit ending;            /* somebody typed unprotect: alder's agent ends when it may */
bit idle;              /* the guest runs, and is not protected */
byte replica;          /* `flows` + 1 when its epoch was made; 0: none */

/* The session: messages carry (generation, has a replica or `flows`). */
bit session;
bit helloed[2];        /* the peer's HELLO has come and fits */
byte epochs;           /* that were sent in this session */
chan to[2] = [3] of { mtype, byte, byte };

chan req[2] = [2] of { mtype, byte, byte };
chan ans[2] = [2] of { byte, bit, bit, byte };

hidden mtype act;
hidden mtype ev;
hidden mtype op;
hidden byte g, n, v;
hidden byte mine, runs;

#define SAFE \
	(!(started && up[B] && guest && !paused && l[P].state == FREE))
#define alder_runs \
	(up[P] && guest && !paused && (l[P].state == FREE || \
	 (l[P].state == GUARDED && session && l[B].state == STANDBY)))
/* A host that is lost while its guest runs unprotected takes it along; what is
 * lost after birch has won may leave nobody who can go on; and what more than
 * one loss leads to may be to keep still. */
#define GOAL (alder_runs || (started && up[B]) || unprotected || lost > 1)

inline hang_up() {
	session = 0;
	helloed[P] = 0;
	helloed[B] = 0;
	do
	:: to[P]?_,_,_
	:: to[B]?_,_,_
	:: empty(to[P]) && empty(to[B]) -> break
	od
}

/* --- The lease: transit(), request_follow() and lease_tick() of lease.c --- */

#define ROW(from, on, into, action) \
	l[i].state == from && ev == on -> l[i].state = into; act = action

inline request_set(i, what) {
	l[i].op = what;
	l[i].opgen = l[i].generation;
	l[i].sent = 0
}

inline request_follow(i) {
	if
	:: ev == GRANTED || ev == REFUSED || ev == DENIED ->
		l[i].op = NONE; l[i].sent = 0
	:: else ->
		if
		:: l[i].op == CLAIM && !l[i].sent &&
		   l[i].state != ASKING && l[i].state != CLAIMING ->
			l[i].op = NONE
		:: else
		fi
	fi;
	if
	:: l[i].state == SETTLING && l[i].op == NONE -> l[i].state = EMPTY
	:: else
	fi;
	if
	:: (ev == GRANTED && l[i].state == FREE) ||
	   (ev == STARTED && l[i].state == WON) -> request_set(i, RUNNING)
	:: else
	fi;
	if
	:: ev == UNSURE && l[i].op == NONE -> request_set(i, QUERY)
	:: else
	fi
}

inline request_wanted(i) {
	if
	:: l[i].state == RETURNING && l[i].op != RETURN -> request_set(i, RETURN)
	:: (l[i].state == YIELDED || l[i].state == WAITING) && l[i].op == NONE ->
		request_set(i, QUERY)
	:: else
	fi
}

inline transit(i) {
	act = NOTHING;
	if
#include "table.pml"
	:: else -> ev = NOEVENT
	fi;
	if
	:: ev != NOEVENT -> request_follow(i)
	:: else
	fi;
	carry_out(i);
	request_wanted(i);
	assert(SAFE)
}

inline carry_out(i) {
	if
	:: act == RELEASE ->
		paused = 0;
		flows++;
		hang_up()
	:: act == PAUSE || act == FENCE -> paused = 1
	:: act == DISCARD ->
		l[i].state = EMPTY;
		if
		:: i == B -> replica = 0
		:: else
		fi
	:: else
	fi;
	act = NOTHING;
	ev = NOEVENT
}

inline claim(i, into) {
	l[i].state = into;
	if
	:: l[i].op != CLAIM ->
		request_set(i, CLAIM);
		l[i].nonce++
	:: else
	fi
}

inline answer(i) {
	l[i].seen = v;
	if
	:: g > l[i].generation ->
		if
		:: mine -> ev = GRANTED
		:: !mine && runs -> ev = DENIED
		:: else -> ev = REFUSED
		fi;
		if
		:: mine || l[i].state == EMPTY || l[i].state == SETTLING ||
		   l[i].state == RETURNING ->
			l[i].generation = g;
			hang_up() /* what is on its way is of another generation */
		:: else
		fi;
		transit(i)
	:: g == l[i].generation && (l[i].op == QUERY ||
	   (l[i].op == RUNNING && runs)) -> l[i].op = NONE;
		l[i].sent = 0;
		request_wanted(i)
	:: else
	fi
}

/* --- The arbiter --------------------------------------------------------- */

inline arbiter_do(i) {
	if
	:: op == CLAIM && g == generation && holder != NOBODY ->
		generation++;
		holder = i;
		nonce = n;
		running = 0;
		version++
	:: op == RUNNING && g == generation && holder == i && !running ->
		running = 1;
		version++
	:: op == RETURN && g == generation && holder == i && !running ->
		generation++;
		holder = 1 - i;
		nonce = 0;
		version++
	:: op == LEAVE && g == generation && holder == i ->
		generation++; /* nobody's */
		holder = NOBODY;
		nonce = 0;
		running = 1;
		version++
	:: op == REGISTER && g == generation && (holder == NOBODY || holder == i) ->
		generation++; /* registered */
		holder = i;
		nonce = n;
		running = 1;
		version++
	:: else
	fi
}

inline arbiter_answer(i) {
	if
	:: op == LEAVE
	:: op != LEAVE && nfull(ans[i]) ->
		ans[i]!generation,
			(holder == i && (nonce == 0 || nonce == n)), running, version
	:: op != LEAVE && patience -> patience-- /* lost */
	fi
}

#define reachable(i) (arbiter && up[i] && path[i])
#define can_answer(i) (nfull(ans[i]) || patience)

proctype witness(bit i)
{
end:	do
	:: atomic { reachable(i) && nempty(req[i]) && can_answer(i) ->
		if
		:: req[i]?op,g,n
		/* Those of one process keep their order. */
		:: len(req[i]) == 2 && (req[i]?[LEAVE,_,_] || req[i]?[REGISTER,_,_]) ->
			req[i]?op,g,n; req[i]!op,g,n;
			req[i]?op,g,n
		:: patience ->               /* twice */
			patience--;
			req[i]?<op,g,n>
		fi;
		arbiter_do(i);
		arbiter_answer(i) }
	:: atomic { nempty(req[i]) && patience -> /* the request is lost */
		patience--;
		req[i]?_,_,_ }
	:: atomic { nempty(ans[i]) && patience -> /* the answer is */
		patience--;
		ans[i]?_,_,_,_ }
	od
}

/* What both sides do about the arbiter. A request goes out when it is not on
 * its way already and there is something to hear: it is a change, or nothing
 * was heard since. */
#define polls(i) (l[i].op == QUERY)
#define has_agent(i) (agent[i] && !(i == P && idle))
#define quiet(i) (empty(req[i]) && empty(ans[i]))
#define worth(i) (l[i].op != NONE && nfull(req[i]) && \
	!(req[i]??[eval(l[i].op), eval(l[i].opgen), eval(l[i].nonce)]) && \
	(!l[i].sent || (quiet(i) && (!polls(i) || l[i].seen != version))))

proctype asker(bit i)
{
end:	do
	:: atomic { reachable(i) && has_agent(i) && worth(i) ->
		req[i]!l[i].op,l[i].opgen,l[i].nonce;
		l[i].sent = 1 }
	:: atomic { has_agent(i) && up[i] && ans[i]?[g,mine,runs,v] ->
		ans[i]?g,mine,runs,v;
		answer(i) }
	:: atomic { has_agent(i) && up[i] && len(ans[i]) == 2 ->
		ans[i]?g,mine,runs,v; ans[i]!g,mine,runs,v; /* another order */
		ans[i]?g,mine,runs,v;
		answer(i) }
	od
}

/* --- The session --------------------------------------------------------- */

#define both (link && up[P] && up[B] && agent[P] && agent[B] && !idle)
/* Whoever ran it and lost, or is about to run it, opens none. */
#define talks(i) (l[i].state != FENCED && l[i].state != LOST && \
	l[i].state != WON)
/* Numbers that differ are asked about; then, or after a change, it is tried
 * again. */
#define sorted_out (l[P].generation == l[B].generation || \
	(l[P].generation < l[B].generation && l[P].op == NONE && \
	 l[P].state != YIELDED) || \
	(l[P].generation > l[B].generation && \
	 (l[B].state == EMPTY || l[B].op == NONE)))

inline connect() {
	atomic { both && !session && talks(P) && talks(B) && sorted_out &&
	         guest && !paused && l[P].state != YIELDED ->
		session = 1;
		epochs = 0;
		to[B]!HELLO,l[P].generation,0;
		to[P]!HELLO,l[B].generation,(replica != 0) }
}

#define sends_epoch (session && helloed[P] && epochs < 2 && guest && !ending && \
	(l[P].state == FREE || l[P].state == GUARDED) && nfull(to[B]))

#define acknowledges (session && \
	(l[B].state == EMPTY || l[B].state == STANDBY))

/* The agent is gone; what it said last may be heard, and nobody waits for an
 * answer. */
inline leave() {
	ending = 0;
	idle = 1;
	l[P].op = NONE;
	l[P].sent = 0;
	l[P].seen = 0;
	l[P].state = FREE;
	if
	:: reachable(P) -> req[P]!LEAVE,l[P].generation,l[P].nonce
	:: patience || !reachable(P) -> skip
	fi
}

/* A new agent, with what the daemon was answered. */
inline begin() {
	idle = 0;
	l[P].generation = g;
	request_set(P, RUNNING);
	hang_up()
}

proctype alder()
{
	byte a, b;
end:	do
	:: connect()
	:: atomic { session && to[P]?[HELLO,a,b] -> to[P]?HELLO,a,b;
		if
		:: a > l[P].generation -> ev = UNSURE; request_follow(P);
			ev = NOEVENT; hang_up()
		:: a < l[P].generation -> skip      /* birch finds that out */
		:: a == l[P].generation && b ->
			if
			:: helloed[P] = 1          /* goes on with the replica */
			:: to[B]!GIVEUP,l[P].generation,0
			fi
		:: a == l[P].generation && !b -> ev = DISCARDED; transit(P);
			if
			:: session -> helloed[P] = 1
			:: else
			fi
		fi }
	:: atomic { session && to[P]?[ACK,a,b] -> to[P]?ACK,a,b;
		ev = COMMIT; transit(P) }
	:: atomic { session && to[P]?[GIVENUP,a,b] -> to[P]?GIVENUP,a,b;
		ev = DISCARDED; transit(P) }
	:: atomic { sends_epoch ->
		epochs++;
		ev = COMMIT;
		transit(P);
		to[B]!EPOCH,l[P].generation,flows + 1 }
	:: atomic { up[P] && agent[P] && guest && l[P].state == GUARDED &&
	            (!acknowledges || stalls) ->
		if
		:: acknowledges -> stalls--
		:: else
		fi;
		claim(P, ASKING) }
	/* unprotect */
	:: atomic { ends && !ending && !idle && guest && !paused && agent[P] &&
	            (l[P].state == FREE || l[P].state == GUARDED) ->
		ends--;
		ending = 1 }
	:: atomic { ending && session && helloed[P] && l[P].state == GUARDED &&
	            epochs < 3 && nfull(to[B]) ->
		epochs = 3;
		to[B]!GIVEUP,l[P].generation,0 }
	:: atomic { ending && agent[P] && up[P] && guest && quiet(P) &&
	            l[P].state == FREE ->
		hang_up();
		leave() }
	/* protect, again when there was no answer, or another one may come */
	:: atomic { idle && reachable(P) && nfull(req[P]) &&
	            ((l[P].op == REGISTER && quiet(P)) ||
	             (l[P].op != REGISTER && l[P].seen != version)) ->
		l[P].op = REGISTER;
		l[P].nonce++;
		req[P]!REGISTER,generation,l[P].nonce }
	:: atomic { idle && ans[P]?[g,mine,runs,v] -> ans[P]?g,mine,runs,v;
		l[P].op = NONE;
		l[P].seen = v;
		if
		:: mine -> begin()
		:: else
		fi }
	od
}

/* An alder that came back without its guest says so. */
#define hears (link && up[P] && guest)

proctype birch()
{
	byte a, b;
end:	do
	:: atomic { session && to[B]?[HELLO,a,b] -> to[B]?HELLO,a,b;
		if
		:: a > l[B].generation && l[B].state == EMPTY ->
			l[B].generation = a; hang_up()
		:: a > l[B].generation && l[B].state != EMPTY ->
			ev = UNSURE; request_follow(B); ev = NOEVENT; hang_up()
		:: a < l[B].generation -> skip
		:: a == l[B].generation -> helloed[B] = 1
		fi }
	:: atomic { session && to[B]?[EPOCH,a,b] &&
	            (l[B].state == EMPTY || l[B].state == STANDBY) &&
	            nfull(to[P]) -> to[B]?EPOCH,a,b;
		replica = b;
		ev = COMMIT; transit(B);
		to[P]!ACK,a,0 }
	:: atomic { session && to[B]?[GIVEUP,a,b] && nfull(to[P]) &&
	            (l[B].state == EMPTY || l[B].state == STANDBY ||
	             l[B].state == CLAIMING || l[B].state == WAITING) ->
		to[B]?GIVEUP,a,b;
		replica = 0;
		ev = DISCARDED; transit(B);
		to[P]!GIVENUP,a,0 }
	:: atomic { up[B] && agent[B] && l[B].state == STANDBY &&
	            (!hears || stalls) ->
		if
		:: hears -> stalls--
		:: else
		fi;
		claim(B, CLAIMING) }
	:: atomic { l[B].state == CLAIMING && l[B].op == CLAIM && !l[B].sent &&
	            hears -> l[B].op = NONE; l[B].state = STANDBY }
	/* Won: it starts, or it can't. */
	:: atomic { up[B] && agent[B] && l[B].state == WON && !started ->
		hang_up();
		started = 1;
		assert(replica == flows + 1);
		ev = STARTED; transit(B) }
	:: atomic { up[B] && agent[B] && l[B].state == WON && !started &&
	            failures && up[P] && guest ->
		failures--;
		hang_up();
		ev = FAILED; transit(B) }
	od
}

/* --- What is lost -------------------------------------------------------- */

/* The successor of an agent knows what was written down. */
inline successor(i) {
	l[i].seen = 0;
	do
	:: ans[i]?_,_,_,_
	:: empty(ans[i]) -> break
	od;
	if
	:: l[i].op != CLAIM || !l[i].sent -> l[i].op = NONE; l[i].sent = 0
	:: else
	fi
}

inline alder_again() {
	successor(P);
	if
	:: !guest && l[P].op == CLAIM -> l[P].state = SETTLING
	:: !guest && l[P].op != CLAIM -> l[P].state = EMPTY
	:: guest && l[P].state != FENCED && l[P].op == CLAIM ->
		l[P].state = ASKING
	:: guest && l[P].state != FENCED && l[P].op != CLAIM ->
		l[P].state = GUARDED
	:: else
	fi
}

inline birch_again() {
	successor(B);
	replica = (started -> replica : 0);
	if
	:: started && up[B] -> l[B].state = WON;
		request_set(B, RUNNING)
	:: !started && (l[B].state == WON || l[B].state == RETURNING) ->
		l[B].state = RETURNING; request_set(B, RETURN)
	:: !started && l[B].state != WON && l[B].state != RETURNING &&
	   l[B].op == CLAIM -> l[B].state = SETTLING
	:: else -> l[B].state = EMPTY
	fi
}

inline lose() {
	losses--;
	lost++;
	unprotected = unprotected || holder == B || l[B].state == RETURNING
}

proctype fate()
{
end:	do
	:: atomic { losses && link -> lose(); link = 0; hang_up() }
	:: atomic { losses && arbiter -> lose(); arbiter = 0 }
	:: atomic { losses && path[P] -> lose(); path[P] = 0 }
	:: atomic { losses && path[B] -> lose(); path[B] = 0 }
	:: atomic { losses && up[P] -> lose(); up[P] = 0; hang_up();
		unprotected = unprotected || idle ||
			(guest && replica != flows + 1);
		idle = 0;
		guest = 0 }
	:: atomic { losses && up[B] -> lose(); up[B] = 0; hang_up() }
	:: atomic { losses && agent[P] && up[P] && !idle -> lose(); agent[P] = 0;
		hang_up() }
	:: atomic { losses && agent[B] && up[B] -> lose(); agent[B] = 0;
		hang_up() }
	/* ... and comes back. */
	:: atomic { !link -> link = 1 }
	:: atomic { !arbiter -> arbiter = 1 }
	:: atomic { !path[P] -> path[P] = 1 }
	:: atomic { !path[B] -> path[B] = 1 }
	:: atomic { !agent[P] && up[P] -> agent[P] = 1; alder_again() }
	:: atomic { !agent[B] && up[B] -> agent[B] = 1; birch_again() }
	:: atomic { !up[P] -> up[P] = 1; agent[P] = 1; alder_again() }
	:: atomic { !up[B] && !started -> up[B] = 1; agent[B] = 1;
		birch_again() }
	:: losses -> losses = 0 /* no more */
	od
}

active proctype judge()
{
	timeout -> assert(GOAL)
}

/* Alder is protected: birch holds the first epoch. */
init {
	atomic {
		l[P].state = GUARDED; l[B].state = STANDBY;
		l[P].generation = 1; l[B].generation = 1;
		l[P].op = NONE; l[B].op = NONE;
		replica = 1;
		session = 1; helloed[P] = 1; helloed[B] = 1;
		run witness(P); run witness(B); run asker(P); run asker(B);
		run alder(); run birch(); run fate()
	}
}
