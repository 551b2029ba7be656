// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/protocol/range_replica.h"

#include <algorithm>
#include <utility>

#include "trireme/base/check.h"

namespace trireme::ps {
namespace {

bool by_rank(const Member& left, const Member& right) { return left.rank < right.rank; }

// In which the server was given the range to follow; 0: it does not follow.
Term followed_since(const RangeView& range, ServerId server) {
  if (range.backup == server) return range.backup_since;
  return range.successor == server ? range.successor_since : 0;
}

}  // namespace

// Views

void RangeReplica::enter_view(Term term, const RangeView& range,
                              const std::vector<WorkerView>& workers) {
  if (term <= term_) return;
  retry_all();
  const RangeView before = std::exchange(range_, range);
  const bool first = std::exchange(term_, term) == 0;
  // Who is primary or ready in the first view that it sees has missed nothing: without it nothing
  // was answered.
  const bool ready = range.backup_ready && range.backup == self_;
  if (first) installed_ = is_primary() || ready;
  workers_ = workers;
  reported_ = false;
  if (is_primary()) return lead();
  stop_leading();
  // Who follows this primary already keeps what it has: the primary goes on from there.
  const Term since = followed_since(range_, self_);
  const bool keeps = ready || (since > 0 && since == followed_since(before, self_));
  if (!keeps && std::exchange(installed_, false)) {
    state_ = {};
    effects_.push_back({.kind = Effect::Kind::kDiscard});
  }
  TRIREME_ASSERT(installed_ || !ready, "a ready backup does not hold its range");
}

void RangeReplica::lead() {
  TRIREME_ASSERT(installed_, "a server became primary of a range that it does not hold");
  const std::vector<Follower> before = std::exchange(followers_, {});
  // A ready backup that is new to this primary has changed places with it (handover), or nothing
  // has happened yet: both hold the same.
  add_follower(before, {.id = range_.backup,
                        .since = range_.backup_since,
                        .has_state = range_.backup_ready,
                        .position = state_.applied});
  add_follower(
      before,
      {.id = range_.successor, .since = range_.successor_since, .position = state_.applied});
  forget();
  resend();
  for (const Member& member : std::vector<Member>(state_.members)) {
    const bool lives = std::any_of(workers_.begin(), workers_.end(), [&](const WorkerView& worker) {
      return worker.id == member.worker;
    });
    if (!lives) apply({.kind = Op::Kind::kLeave, .members = {member}}, {}, 0, 0);
  }
  check_followers();
  progress();
}

// What is known of one that follows already stays.
void RangeReplica::add_follower(const std::vector<Follower>& before, const Follower& follower) {
  if (follower.id == kNobody) return;
  const auto known = std::find_if(before.begin(), before.end(), [&](const Follower& other) {
    return other.id == follower.id && other.since == follower.since;
  });
  followers_.push_back(known == before.end() ? follower : *known);
}

void RangeReplica::stop_leading() {
  followers_.clear();
  read_.clear();
  forget();
}

void RangeReplica::retry_all() {
  for (const auto& [worker, push] : pushes_) {
    if (!summed_) answer(push.ticket, Answer::kRetry);
  }
  for (const Waiting& pull : pulls_) answer(pull.ticket, Answer::kRetry);
  for (const Ticket ticket : held_) answer(ticket, Answer::kRetry);
  for (const Bound& bound : bound_) answer(bound.ticket, Answer::kRetry);
  pushes_.clear();
  pulls_.clear();
  held_.clear();
  bound_.clear();
  summed_ = false;
}

// Requests

// Only the primary answers, and only in the term of who asks.
bool RangeReplica::refuses(Ticket ticket, Term term, bool before_init) {
  if (term == term_ && is_primary() && (before_init || state_.initialized)) return false;
  answer(ticket, Answer::kRetry);
  return true;
}

bool RangeReplica::refuses_asker(Ticket ticket, const Asker& asker) {
  const Member* const member = find_member(asker.worker);
  if (member == nullptr) {
    answer(ticket, Answer::kNotMember);
    return true;
  }
  if (asker.clock > member->clock) {
    answer(ticket, Answer::kOutOfOrder);
    return true;
  }
  return false;
}

void RangeReplica::init(Ticket ticket, Term term) {
  if (refuses(ticket, term, true)) return;
  if (!state_.initialized) {
    if (range_.handover) return held_.push_back(ticket);
    Op op{.kind = Op::Kind::kInit, .members = {}};
    for (const WorkerView& worker : workers_) op.members.push_back({worker.id, worker.rank, 0});
    apply(std::move(op), {ticket}, ticket, 0);
  }
  answer_when_committed(ticket);
  progress();
}

void RangeReplica::push(Ticket ticket, const Asker& asker, bool then_read, Term term) {
  if (refuses(ticket, term) || refuses_asker(ticket, asker)) return;
  const Waiting request{ticket, asker, then_read};
  if (asker.clock < find_member(asker.worker)->clock) {
    after_push(request);
    return progress();
  }
  const auto found = pushes_.find(asker.worker);
  if (found != pushes_.end() && summed_) return answer(ticket, Answer::kSummed);
  if (found != pushes_.end()) answer(found->second.ticket, Answer::kRetry);
  pushes_[asker.worker] = request;
  progress();
}

void RangeReplica::commit(Ticket ticket, const Asker& asker, bool then_read, Term term) {
  if (refuses(ticket, term) || refuses_asker(ticket, asker)) return;
  if (asker.clock == find_member(asker.worker)->clock) {
    if (!summed_) return answer(ticket, Answer::kRetry);
    apply_step(step_pushes(), ticket);
  }
  after_push({ticket, asker, then_read});
  progress();
}

void RangeReplica::pull(Ticket ticket, const Asker& asker, Term term) {
  if (refuses(ticket, term, true)) return;
  if (state_.initialized && find_member(asker.worker) == nullptr) {
    return answer(ticket, Answer::kNotMember);
  }
  pulls_.push_back({ticket, asker, false});
  progress();
}

void RangeReplica::peek(Ticket ticket, Term term) {
  if (refuses(ticket, term, true)) return;
  pulls_.push_back({ticket, {}, false});
  progress();
}

void RangeReplica::enter(Ticket ticket, WorkerId worker, Term term) {
  if (refuses(ticket, term)) return;
  const auto view = std::find_if(workers_.begin(), workers_.end(),
                                 [&](const WorkerView& w) { return w.id == worker; });
  if (view == workers_.end()) return answer(ticket, Answer::kNotMember);
  if (find_member(worker) == nullptr) {
    if (range_.handover) return held_.push_back(ticket);
    const std::int64_t clock = state_.step + (summed_ ? 1 : 0);
    apply({.kind = Op::Kind::kEnter, .members = {{worker, view->rank, clock}}}, {}, 0, 0);
  }
  read(ticket, worker);
  progress();
}

// Progress

// Everything whose time has come. A push lets steps be applied and these let reads go, whose
// answers wait for the followers.
void RangeReplica::progress() {
  if (state_.initialized && !range_.handover) {
    while (options_.consistency.sums ? try_sum() : try_single_pushes()) {
    }
  }
  try_pulls();
  flush_bound();
}

// What remains of a push whose clock has been counted.
void RangeReplica::after_push(const Waiting& request) {
  if (request.then_read) {
    pulls_.push_back({request.ticket, {request.asker.worker, request.asker.clock + 1}, false});
  } else {
    answer_when_committed(request.ticket);
  }
}

// Pushes of members that are not too far ahead, in the order of workers; true when one was applied.
bool RangeReplica::try_single_pushes() {
  for (auto it = pushes_.begin(); it != pushes_.end(); ++it) {
    const Waiting push = it->second;
    if (push.asker.clock - slowest_clock() > options_.consistency.bound) continue;
    pushes_.erase(it);
    const Member member = *find_member(push.asker.worker);
    const auto seen = read_.find(push.asker.worker);
    const std::int64_t staleness = seen == read_.end() ? -1 : state_.updates - seen->second;
    apply({.kind = Op::Kind::kUpdate, .members = {{member.worker, member.rank, member.clock + 1}}},
          {push.ticket}, push.ticket, staleness);
    after_push(push);
    return true;
  }
  return false;
}

// The pushes of the slowest step when all of its members have pushed, ascending by rank; else none.
std::vector<RangeReplica::Waiting> RangeReplica::step_pushes() const {
  std::vector<Waiting> pushes;
  for (const Member& member : state_.members) {
    if (member.clock != slowest_clock()) continue;
    const auto found = pushes_.find(member.worker);
    if (found == pushes_.end()) return {};
    pushes.push_back(found->second);
  }
  return pushes;
}

bool RangeReplica::try_sum() {
  if (summed_) return false;
  const std::vector<Waiting> pushes = step_pushes();
  if (pushes.empty()) return false;
  if (!options_.two_phases) {
    apply_step(pushes, pushes.front().ticket);
    for (const Waiting& push : pushes) after_push(push);
    return true;
  }
  Effect sum{.kind = Effect::Kind::kSum};
  for (const Waiting& push : pushes) sum.tickets.push_back(push.ticket);
  effects_.push_back(std::move(sum));
  for (const Waiting& push : pushes) answer(push.ticket, Answer::kSummed);
  summed_ = true;
  return false;
}

void RangeReplica::apply_step(const std::vector<Waiting>& pushes, Ticket commit) {
  Op op{.kind = Op::Kind::kUpdate, .members = {}};
  std::vector<Ticket> tickets;
  for (const Waiting& push : pushes) {
    Member member = *find_member(push.asker.worker);
    ++member.clock;
    op.members.push_back(member);
    tickets.push_back(push.ticket);
    pushes_.erase(push.asker.worker);
  }
  summed_ = false;
  apply(std::move(op), std::move(tickets), commit, 0);
}

void RangeReplica::try_pulls() {
  std::vector<Waiting> waiting = std::exchange(pulls_, {});
  for (const Waiting& pull : waiting) {
    if (may_read(pull.asker)) {
      read(pull.ticket, pull.asker.worker);
    } else {
      pulls_.push_back(pull);
    }
  }
}

// A worker reads what it has pushed before, and what the slowest one has.
bool RangeReplica::may_read(const Asker& asker) const {
  if (!state_.initialized) return false;
  if (asker.worker == kNobody) return true;
  for (const Member& member : state_.members) {
    if (member.worker == asker.worker && member.clock < asker.clock) return false;
  }
  const std::int64_t slowest = slowest_clock();
  return slowest == Consistency::kUnbounded || asker.clock - slowest <= options_.consistency.bound;
}

void RangeReplica::read(Ticket ticket, WorkerId worker) {
  if (worker != kNobody) read_[worker] = state_.updates;
  effects_.push_back({.kind = Effect::Kind::kRead, .ticket = ticket});
  answer_when_committed(ticket);
}

// Changes

void RangeReplica::apply(Op op, std::vector<Ticket> tickets, Ticket ticket,
                         std::int64_t staleness) {
  change(op);
  Effect effect{.kind = Effect::Kind::kApply, .ticket = ticket, .position = state_.applied};
  effect.op = op;
  effect.tickets = std::move(tickets);
  effect.staleness = staleness;
  effects_.push_back(std::move(effect));
  for (const Follower& follower : followers_) {
    effects_.push_back({.kind = Effect::Kind::kReplicate,
                        .to = follower.id,
                        .position = state_.applied,
                        .op = op});
  }
  if (!followers_.empty()) log_.push_back({state_.applied, std::move(op)});
}

void RangeReplica::change(const Op& op) {
  ++state_.applied;
  switch (op.kind) {
    case Op::Kind::kInit:
      state_.initialized = true;
      state_.members = op.members;
      break;
    case Op::Kind::kUpdate:
      ++state_.updates;
      for (const Member& changed : op.members) find_member(changed.worker)->clock = changed.clock;
      break;
    case Op::Kind::kEnter:
      state_.members.push_back(op.members.front());
      std::sort(state_.members.begin(), state_.members.end(), by_rank);
      break;
    case Op::Kind::kLeave:
      std::erase_if(state_.members, [&](const Member& member) {
        return member.worker == op.members.front().worker;
      });
      break;
  }
  if (!state_.members.empty()) state_.step = slowest_clock();
}

// Replication

void RangeReplica::resend() {
  for (Follower& follower : followers_) {
    if (!follower.has_state) {
      send_state(follower);
      continue;
    }
    for (const LoggedOp& logged : log_) {
      if (logged.position <= follower.position) continue;
      effects_.push_back({.kind = Effect::Kind::kReplicate,
                          .to = follower.id,
                          .position = logged.position,
                          .op = logged.op});
    }
  }
}

// As it is now, so that changes until now are part of it.
void RangeReplica::send_state(Follower& follower) {
  follower.position = state_.applied;
  forget();
  effects_.push_back(
      {.kind = Effect::Kind::kSendState, .to = follower.id, .position = state_.applied});
}

// Changes that all followers have.
void RangeReplica::forget() {
  std::int64_t position = state_.applied;
  for (const Follower& follower : followers_) position = std::min(position, follower.position);
  if (log_.empty() || log_.front().position > position) return;
  while (!log_.empty() && log_.front().position <= position) log_.pop_front();
  effects_.push_back({.kind = Effect::Kind::kForget, .position = position});
}

// Both come from the primary of their term to one who follows in it.
void RangeReplica::replicate(Term term, std::int64_t position, const Op& op) {
  if (term != term_ || !installed_) return;
  if (position == state_.applied + 1) {
    change(op);
    effects_.push_back({.kind = Effect::Kind::kApply, .position = position, .op = op});
  }
  effects_.push_back({.kind = Effect::Kind::kAcknowledge, .position = state_.applied});
}

void RangeReplica::take_state(Term term, const ReplicaState& state) {
  if (term != term_) return;
  if (!installed_ || state.applied > state_.applied) {
    state_ = state;
    installed_ = true;
    effects_.push_back({.kind = Effect::Kind::kTakeState, .position = state_.applied});
  }
  effects_.push_back({.kind = Effect::Kind::kAcknowledge, .position = state_.applied});
}

void RangeReplica::acknowledge(ServerId from, Term term, std::int64_t position) {
  if (term != term_) return;
  const auto follower = std::find_if(followers_.begin(), followers_.end(),
                                     [from](const Follower& other) { return other.id == from; });
  if (follower == followers_.end() || position < follower->position) return;
  follower->position = position;
  if (!std::exchange(follower->has_state, true)) follower->answered = state_.applied;
  forget();
  check_followers();
  flush_bound();
}

// Reports a follower that has all that was ever answered, now that answers wait for it; in a
// handover, a backup that has all.
void RangeReplica::check_followers() {
  if (followers_.empty()) return;
  const Follower& last = followers_.back();
  const bool waits = range_.handover || range_.successor != kNobody || !range_.backup_ready;
  const std::int64_t needed = range_.handover ? state_.applied : last.answered;
  if (!waits || !last.has_state || last.position < needed) return;
  if (std::exchange(reported_, true)) return;
  effects_.push_back({.kind = Effect::Kind::kReport});
}

// Answers

void RangeReplica::answer(Ticket ticket, Answer answer) {
  effects_.push_back({.kind = Effect::Kind::kAnswer, .ticket = ticket, .answer = answer});
}

void RangeReplica::answer_when_committed(Ticket ticket) {
  bound_.push_back({state_.applied, ticket});
}

std::int64_t RangeReplica::committed() const {
  std::int64_t committed = state_.applied;
  for (const Follower& follower : followers_) {
    if (follower.has_state) committed = std::min(committed, follower.position);
  }
  return committed;
}

void RangeReplica::flush_bound() {
  std::erase_if(bound_, [this](const Bound& bound) {
    if (bound.position > committed()) return false;
    answer(bound.ticket, Answer::kDone);
    return true;
  });
}

std::vector<Effect> RangeReplica::take_effects() { return std::exchange(effects_, {}); }

// State

Member* RangeReplica::find_member(WorkerId worker) {
  for (Member& member : state_.members) {
    if (member.worker == worker) return &member;
  }
  return nullptr;
}

std::int64_t RangeReplica::slowest_clock() const {
  std::int64_t slowest = Consistency::kUnbounded;
  for (const Member& member : state_.members) slowest = std::min(slowest, member.clock);
  return slowest;
}

std::vector<int> RangeReplica::awaited_ranks() const {
  std::vector<int> ranks;
  for (const Member& member : state_.members) {
    if (member.clock == slowest_clock() && !pushes_.contains(member.worker)) {
      ranks.push_back(member.rank);
    }
  }
  return ranks;
}

}  // namespace trireme::ps
