// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RangeReplica: what one server decides about one range: in which order updates are applied, who
// waits for whom, when an answer may be given, and how the backup comes to hold the same. Pure: it
// holds no values, reads no clock and sends nothing. Whoever owns it tells it what arrived and does
// what it says:
//
//   replica.push(ticket, {.worker = 7, .clock = 3}, term);
//   for (const Effect& effect : replica.take_effects()) { ... }
//
// tests/ps/protocol_test.cc tries all orders, losses and repetitions of messages and all crashes of
// small systems of it; ps/range_host.h runs it.
//
// The clock of a worker is the number of steps whose push it has had applied here: one push of each
// worker to each range in each step, empty if need be. Where pushes are summed (sync) a step is
// complete when all members whose clock it is have pushed; else a push is applied at once, unless
// its worker is too far ahead. Where the sum is asked for first (two phases) the step is applied by
// the first commit() of any of its members.
//
// Replication. The primary numbers all changes (Op), applies them and sends them to its followers,
// the backup and its successor, which apply them in the same order. An answer tells of changes up
// to a position, and is given when the followers have them all: what anyone has seen is never
// undone by the loss of one server. A new follower gets the state and then the changes after it;
// answers wait for it from the moment that it has the state, and when it has all that was answered
// before, the primary reports it ready. Only a ready backup becomes primary. Messages of another
// term are ignored, so that a server that was taken for dead cannot answer any more: its backup has
// gone on to another term.
//
// In a term of handover the primary applies nothing, and reports when its backup has all that it
// has itself. Requests for changes wait for the next view, in which the two have changed places.
//
// With each new view pending requests are answered kRetry. Their senders repeat them in the new
// term; what was applied already is recognised by its clock.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "trireme/ps/protocol/view.h"

namespace trireme::ps {

// A request that waits for its answer: the owner's number for it.
using Ticket = std::int64_t;

enum class Answer : std::uint8_t {
  kDone = 0,
  kSummed,      // two phases: the sum is there, commit() is waited for
  kRetry,       // another term, or the step must be pushed again
  kNotMember,   // the worker was dropped, or has not entered
  kOutOfOrder,  // a push before the one that its clock waits for
};

// A worker that this range waits for.
struct Member {
  WorkerId worker = kNobody;
  int rank = 0;
  std::int64_t clock = 0;  // of the step that it pushes next

  auto operator<=>(const Member&) const = default;
};

// A change of the range.
struct Op {
  enum class Kind : std::uint8_t { kInit, kUpdate, kEnter, kLeave };
  Kind kind = Kind::kUpdate;
  // kUpdate: who contributed, ascending by rank, with the clocks that they have afterwards. kEnter:
  // the new member. kLeave: who is none any more.
  std::vector<Member> members;

  auto operator<=>(const Op&) const = default;
};

// What both replicas hold beside the values.
struct ReplicaState {
  bool initialized = false;
  std::int64_t applied = 0;     // position: changes so far
  std::int64_t updates = 0;     // of them kUpdate
  std::int64_t step = 0;        // the slowest member's, which stays when the last member leaves
  std::vector<Member> members;  // ascending by rank

  auto operator<=>(const ReplicaState&) const = default;
};

struct Effect {
  enum class Kind : std::uint8_t {
    kSum,          // of the payloads of tickets, in their order; each is then answered kSummed
    kApply,        // op: of the sum, of tickets' payload, or (follower) of the message under way
    kRead,         // what the ticket asked for, as it is now
    kAnswer,       // ticket
    kReplicate,    // op, as change `position`, to server `to`; its payload until kForget
    kForget,       // payloads of changes up to `position` are needed no more
    kSendState,    // values and state() as they are now to server `to`
    kTakeState,    // (follower) the values of the message under way become this replica's
    kAcknowledge,  // `position` to the primary
    kReport,       // what the view waits for has come (Membership::ready), to the coordinator
    kDiscard,      // the values are of no more use
  };
  Kind kind = Kind::kAnswer;
  Ticket ticket = 0;
  Answer answer = Answer::kDone;
  ServerId to = kNobody;
  std::int64_t position = 0;
  Op op = {};
  std::vector<Ticket> tickets = {};  // kSum, kApply at the primary: of op.members, in order
  std::int64_t staleness =
      0;  // kApply of a single push: updates since its worker's read; -1: unknown

  auto operator<=>(const Effect&) const = default;
};

struct ReplicaOptions {
  Consistency consistency;
  bool two_phases = false;  // where pushes are summed

  auto operator<=>(const ReplicaOptions&) const = default;
};

// Who asks: a worker, and the step that it is in. A push is that of the step; a pull reads the
// weights for it.
struct Asker {
  WorkerId worker = kNobody;
  std::int64_t clock = 0;

  auto operator<=>(const Asker&) const = default;
};

// Not thread-safe. Copyable: a copy goes on independently.
class RangeReplica {
 public:
  RangeReplica(ServerId self, const ReplicaOptions& options) : self_(self), options_(options) {}

  // Views must come in ascending terms; older ones are ignored. range: this one's in the view.
  void enter_view(Term term, const RangeView& range, const std::vector<WorkerView>& workers);

  // Requests of workers, to the primary in their term. A worker has at most one push or commit
  // under way for a range; one that is repeated takes the place of the one before.
  void init(Ticket ticket, Term term);  // the first values; later ones change nothing
  // then_read: the answer is that of a pull() in the next step.
  void push(Ticket ticket, const Asker& asker, bool then_read, Term term);
  void commit(Ticket ticket, const Asker& asker, bool then_read, Term term);
  // Waits for the worker's own pushes of the steps before, whether they have arrived or not.
  void pull(Ticket ticket, const Asker& asker, Term term);
  // At once, as of no step.
  void peek(Ticket ticket, Term term);
  // The worker becomes a member: of the step that is not summed yet, or in the slowest one's. Its
  // clock: state() when kRead is done.
  void enter(Ticket ticket, WorkerId worker, Term term);

  // Messages between the replicas.
  void replicate(Term term, std::int64_t position, const Op& op);
  void take_state(Term term, const ReplicaState& state);
  void acknowledge(ServerId from, Term term, std::int64_t position);
  // What followers have not acknowledged is sent again: after a connection was lost.
  void resend();

  // What to do, in this order, since the last call.
  std::vector<Effect> take_effects();

  const ReplicaState& state() const { return state_; }
  Term term() const { return term_; }
  const RangeView& range() const { return range_; }
  bool is_primary() const { return term_ > 0 && range_.primary == self_; }
  // Clock of the slowest member; kUnbounded without members.
  std::int64_t slowest_clock() const;
  // Members whose push the others wait for; ranks.
  std::vector<int> awaited_ranks() const;
  // Position up to which answers may be given.
  std::int64_t committed() const;

  auto operator<=>(const RangeReplica&) const = default;

 private:
  friend struct ProtocolProbe;  // sees all of it, for whoever explores all states
  struct Waiting {              // a request whose time has not come
    Ticket ticket = 0;
    Asker asker;
    bool then_read = false;
    auto operator<=>(const Waiting&) const = default;
  };
  struct Bound {  // an answer that waits for the followers
    std::int64_t position = 0;
    Ticket ticket = 0;
    auto operator<=>(const Bound&) const = default;
  };
  struct LoggedOp {
    std::int64_t position = 0;
    Op op;
    auto operator<=>(const LoggedOp&) const = default;
  };
  struct Follower {  // the backup, or its successor
    ServerId id = kNobody;
    Term since = 0;
    bool has_state = false;     // answers wait for it
    std::int64_t position = 0;  // up to which it has all; before has_state: of what it was sent
    std::int64_t answered = 0;  // what it must have to be ready
    auto operator<=>(const Follower&) const = default;
  };

  bool refuses(Ticket ticket, Term term, bool before_init = false);
  bool refuses_asker(Ticket ticket, const Asker& asker);
  Member* find_member(WorkerId worker);
  void answer(Ticket ticket, Answer answer);
  void answer_when_committed(Ticket ticket);
  void retry_all();
  void lead();
  void stop_leading();
  void add_follower(const std::vector<Follower>& before, const Follower& follower);
  void send_state(Follower& follower);
  void forget();
  void check_followers();

  void after_push(const Waiting& request);
  void progress();
  bool try_single_pushes();
  bool try_sum();
  void try_pulls();
  bool may_read(const Asker& asker) const;
  void read(Ticket ticket, WorkerId worker);
  std::vector<Waiting> step_pushes() const;
  void apply_step(const std::vector<Waiting>& pushes, Ticket commit);
  void apply(Op op, std::vector<Ticket> tickets, Ticket ticket, std::int64_t staleness);
  void change(const Op& op);
  void flush_bound();

  ServerId self_;
  ReplicaOptions options_;

  Term term_ = 0;
  RangeView range_;
  std::vector<WorkerView> workers_;
  bool installed_ = false;  // state_ is the range's
  ReplicaState state_;

  // The primary's alone.
  std::map<WorkerId, Waiting> pushes_;  // not applied
  bool summed_ = false;                 // two phases: the sum of pushes_ is made
  std::vector<Waiting> pulls_;
  std::vector<Ticket> held_;  // handover: requests for other changes
  std::vector<Bound> bound_;
  std::vector<Follower> followers_;        // the backup, then its successor
  bool reported_ = false;                  // in this term
  std::deque<LoggedOp> log_;               // not acknowledged by all of them
  std::map<WorkerId, std::int64_t> read_;  // updates when the worker last read

  std::vector<Effect> effects_;
};

}  // namespace trireme::ps
