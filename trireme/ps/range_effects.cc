// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RangeHost: what the protocol says is done to the values and to the requests that wait.

#include <algorithm>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/ps/range_host.h"
#include "trireme/ps/state_file.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kMostStaleness = 256;
constexpr Ticket kNoTicket = 0;  // of what the range does by itself

void add_all(std::vector<double>& to, const std::vector<double>& from) {
  to.resize(std::max(to.size(), from.size()));
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

}  // namespace

void RangeHost::perform() {
  perform_effects();
  while (std::exchange(applies_nothing_, false)) {
    const std::int64_t step = replica_.slowest_clock();
    for (const Member& member : std::vector<Member>(replica_.state().members)) {
      if (member.clock == step)
        replica_.commit(kNoTicket, {member.worker, step}, false, replica_.term());
    }
    perform_effects();
  }
  const bool without_values = !open_.empty() && !replica_.state().initialized;
  if (layout_.consistency.bound == Consistency::kUnbounded && !without_values &&
      !reported_without_values_) {
    return;
  }
  reported_without_values_ = without_values;
  std::vector<int> awaited;
  if (!open_.empty()) awaited = replica_.awaited_ranks();
  const std::lock_guard lock(report_mutex_);
  report_.ranges_without_values = without_values ? 1 : 0;
  report_.awaited.assign(awaited.begin(), awaited.end());
}

void RangeHost::perform_effects() {
  for (std::vector<Effect> effects = replica_.take_effects(); !effects.empty();
       effects = replica_.take_effects()) {
    for (std::size_t i = 0; i < effects.size(); ++i) {
      const Effect& effect = effects[i];
      if (effect.kind != Effect::Kind::kApply) {
        perform_one(effect);
        continue;
      }
      Change own = change_of(effect);
      const Change* change = &own;
      const auto follows = [&] {
        return i + 1 < effects.size() && effects[i + 1].kind == Effect::Kind::kReplicate;
      };
      if (follows()) {
        change = &log_.insert_or_assign(effect.position, std::move(own)).first->second;
      }
      // Followers work on it while we do.
      while (follows()) perform_one(effects[++i]);
      const std::size_t reads = reads_after(std::span(effects).subspan(i + 1));
      apply_and_read(*change, std::span(effects).subspan(i + 1, reads));
      i += reads;
    }
  }
}

void RangeHost::perform_one(const Effect& effect) {
  switch (effect.kind) {
    case Effect::Kind::kSum:
      count_wait(effect.tickets);
      sum_ = sum_of(effect.tickets, true);
      applies_nothing_ = sum_.empty;
      if (!sum_.empty) sum_.block_sums = storage_->block_sums(sum_.payload);
      return;
    case Effect::Kind::kRead:
      return read(effect.ticket);
    case Effect::Kind::kAnswer:
      return answer(effect);
    case Effect::Kind::kReplicate:
      return replicate(effect.to, effect.position);
    case Effect::Kind::kForget:
      log_.erase(log_.begin(), log_.upper_bound(effect.position));
      return;
    case Effect::Kind::kSendState:
      return send_state(effect.to);
    case Effect::Kind::kTakeState:
      committed_scale_ = cause_.header->committed_scale;
      return storage_->import_state(cause_.payload);
    case Effect::Kind::kAcknowledge:
      cause_.acknowledged = effect.position;
      return;
    case Effect::Kind::kReport:
      return context_.report_ready(replica_.term(), number_);
    case Effect::Kind::kDiscard:
      return discard();
    case Effect::Kind::kApply:
      return;
  }
}

// keep: in memory that outlives the requests.
RangeHost::Sum RangeHost::sum_of(const std::vector<Ticket>& tickets, bool keep) {
  Sum sum;
  std::vector<Contribution> contributions;
  bool assign = false;
  for (const Ticket ticket : tickets) {
    const Open& open = open_.at(ticket);
    assign = assign || open.header.assign;
    add_all(sum.extras, open.header.extras);
    if (open.header.empty) continue;
    sum.weight += open.header.weight;
    contributions.push_back({open.request.payload(), open.header.codec, open.header.lists});
  }
  sum.empty = contributions.empty();
  if (sum.empty) return sum;
  const bool as_it_is = contributions.size() == 1 && contributions[0].codec.empty();
  if (as_it_is && !keep) {
    sum.payload = contributions[0].payload;
    sum.lists = contributions[0].lists;
    return sum;
  }
  if (storage_->one_pass() && !keep && !assign) {
    sum.contributions = std::move(contributions);
    return sum;
  }
  sum.payload = storage_->sum(contributions, [&](std::size_t bytes) {
    sum.memory = context_.buffers().get(bytes);
    return sum.memory.bytes();
  });
  return sum;
}

// Whose learning rate and scale it is: the commit's; in one phase the first worker's that
// contributed.
Ticket RangeHost::ticket_of_scalars(const Effect& effect) const {
  if (layout_.two_phases) return effect.ticket;
  for (const Ticket ticket : effect.tickets) {
    if (!open_.at(ticket).header.empty) return ticket;
  }
  return effect.ticket;
}

// What a change consists of: at the backup from the message under way.
RangeHost::Change RangeHost::change_of(const Effect& effect) {
  Change change;
  change.op = effect.op;
  if (cause_.header != nullptr) {
    change.payload = cause_.payload;
    change.empty = cause_.header->empty;
    change.assign = cause_.header->assign;
    change.scalars = {cause_.header->learning_rate, cause_.header->gradient_scale};
    change.committed_scale = cause_.header->committed_scale;
    return change;
  }
  const bool keep = replica_.range().backup != kNobody;
  if (effect.op.kind == Op::Kind::kInit) {
    Open& open = open_.at(effect.ticket);
    change.empty = false;
    if (open.header.file.empty()) {
      const Bytes values = open.request.payload();
      change.memory = context_.buffers().get(values.size());
      std::copy(values.begin(), values.end(), change.memory.bytes().begin());
    } else {
      change.memory = std::move(open.loaded);
    }
    change.payload = change.memory.bytes();
    return change;
  }
  if (effect.op.kind != Op::Kind::kUpdate) return change;
  Sum sum;
  if (layout_.two_phases) {
    sum = std::move(sum_);
    sum_ = {};
  } else {
    if (layout_.consistency.sums) count_wait(effect.tickets);
    sum = sum_of(effect.tickets, keep);
  }
  change.memory = std::move(sum.memory);
  change.payload = sum.payload;
  change.lists = sum.lists;
  change.contributions = std::move(sum.contributions);
  change.empty = sum.empty;
  if (effect.ticket != kNoTicket) {
    const RangeRequest& header = open_.at(ticket_of_scalars(effect)).header;
    change.empty = sum.empty || header.skip;
    change.assign = header.assign;
    if (layout_.two_phases) change.committed_scale = header.skip ? 0 : header.gradient_scale;
    change.scalars = {header.learning_rate,
                      header.gradient_scale / (sum.weight > 0 ? sum.weight : 1)};
  }
  last_extras_ = std::move(sum.extras);
  const std::lock_guard lock(report_mutex_);
  ++report_.updates;
  if (!layout_.consistency.sums && effect.staleness >= 0) {
    const auto late = std::min(static_cast<std::size_t>(effect.staleness), kMostStaleness);
    report_.staleness.resize(std::max(report_.staleness.size(), late + 1));
    ++report_.staleness[late];
  }
  return change;
}

void RangeHost::apply(const Change& change) {
  if (change.op.kind == Op::Kind::kInit) return storage_->init(change.payload);
  if (change.op.kind == Op::Kind::kUpdate) committed_scale_ = change.committed_scale;
  if (change.op.kind == Op::Kind::kUpdate && !change.empty) {
    if (change.assign) return storage_->init(change.payload);
    storage_->apply({change.payload, {}, change.lists}, change.scalars);
    count_update();
  }
}

void RangeHost::count_update() {
  const std::lock_guard lock(report_mutex_);
  report_.rows = replica_.is_primary() ? storage_->rows() : 0;
  report_.memory_bytes = storage_->memory_bytes();
}

// How many of the effects are reads of values alone.
std::size_t RangeHost::reads_after(std::span<const Effect> effects) const {
  const auto end = std::find_if(effects.begin(), effects.end(), [this](const Effect& effect) {
    if (effect.kind != Effect::Kind::kRead) return true;
    const Method method = open_.at(effect.ticket).method;
    return method == Method::kEnter || method == Method::kSnapshot;
  });
  return static_cast<std::size_t>(end - effects.begin());
}

// The change, and the reads that follow it: in one pass over the values where that is possible.
void RangeHost::apply_and_read(const Change& change, std::span<const Effect> reads) {
  const bool updates = change.op.kind == Op::Kind::kUpdate && !change.empty && !change.assign;
  if (!updates || !storage_->one_pass()) {
    apply(change);
    for (const Effect& effect : reads) read(effect.ticket);
    return;
  }
  std::vector<std::span<std::byte>> outs;
  for (const Effect& effect : reads) {
    Open& open = open_.at(effect.ticket);
    if (prepare_read(open)) outs.push_back(open.request.reply_space(open.read_bytes));
  }
  std::vector<Contribution> contributions = change.contributions;
  if (contributions.empty()) contributions.push_back({change.payload, {}, change.lists});
  committed_scale_ = change.committed_scale;
  storage_->sum_apply_read(contributions, change.scalars, outs);
  count_update();
}

// A server that was stopped has requests that came before. Who sent them may have had its answer
// from another by now: its memory is not written to. True: it is to be read.
bool RangeHost::prepare_read(Open& open) {
  open.late = !context_.lease_holds();
  if (open.late) return false;
  for (const Member& member : replica_.state().members) {
    if (member.worker == open.header.asker.worker) open.clock = member.clock;
  }
  if (open.method == Method::kEnter || open.method == Method::kSnapshot) return true;
  open.read_bytes = storage_->read_bytes(wanted_by(open));
  return true;
}

Contribution RangeHost::wanted_by(const Open& open) {
  if (open.method == Method::kCommit) return {};
  return {open.request.payload(), {}, open.header.lists};
}

void RangeHost::read(Ticket ticket) {
  Open& open = open_.at(ticket);
  if (!prepare_read(open) || open.method == Method::kEnter) return;
  if (open.method == Method::kSnapshot) return write_snapshot(open);
  storage_->read(wanted_by(open), open.request.reply_space(open.read_bytes));
}

void RangeHost::write_snapshot(Open& open) {
  try {
    if (!open.header.file.empty()) {
      open.text = write_state_file(open.header.file,
                                   [this](const auto& take) { storage_->export_state(take); });
      return;
    }
    std::vector<std::byte> state;
    storage_->export_state(
        [&](Bytes part) { state.insert(state.end(), part.begin(), part.end()); });
    const std::span<std::byte> out = open.request.reply_space(state.size());
    std::copy(state.begin(), state.end(), out.begin());
    open.read_bytes = state.size();
  } catch (const Error& error) {
    open.text = error.what();
    open.failed = true;
  }
}

void RangeHost::answer(const Effect& effect) {
  const auto found = open_.find(effect.ticket);
  if (found == open_.end()) return;  // two phases: a push that was answered kSummed
  Open& open = found->second;
  RangeReply reply{.term = replica_.term(),
                   .clock = open.clock,
                   .extras = {},
                   .block_sums = {},
                   .text = open.text};
  if (effect.answer == Answer::kSummed) {
    reply.weight = sum_.weight;
    reply.extras = sum_.extras;
    reply.block_sums = sum_.block_sums;
  } else if (effect.answer == Answer::kDone) {
    reply.extras = last_extras_;
    reply.committed_scale = committed_scale_;
  }
  if (open.late) {
    open.request.reply(kStatusNotHere, encode(RangeReply{}));
    open_.erase(found);
    return;
  }
  const bool done = effect.answer == Answer::kDone && !open.failed;
  const auto status = open.failed ? kStatusRefused : static_cast<std::uint32_t>(effect.answer);
  open.request.reply(status, encode(reply), done ? open.read_bytes : 0);
  open_.erase(found);
}

// For how long the last push of a step was waited for by the others.
void RangeHost::count_wait(const std::vector<Ticket>& tickets) {
  if (tickets.size() < 2) return;
  const Open* last = nullptr;
  double before_us = 0;
  for (const Ticket ticket : tickets) {
    const Open& open = open_.at(ticket);
    if (last == nullptr || open.arrived_us > last->arrived_us) {
      if (last != nullptr) before_us = std::max(before_us, last->arrived_us);
      last = &open;
    } else {
      before_us = std::max(before_us, open.arrived_us);
    }
  }
  for (const Member& member : replica_.state().members) {
    if (member.worker != last->header.asker.worker) continue;
    const auto rank = static_cast<std::size_t>(member.rank);
    const std::lock_guard lock(report_mutex_);
    report_.waited_for_us.resize(std::max(report_.waited_for_us.size(), rank + 1));
    report_.waited_for_us[rank] += last->arrived_us - before_us;
  }
}

}  // namespace trireme::ps
