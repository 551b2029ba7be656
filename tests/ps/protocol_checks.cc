// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What must hold in all states of the protocol's model.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/ps/protocol_model.h"
#include "tests/ps/protocol_names.h"

namespace trireme::ps {
namespace {

using Request = Message::Request;

std::size_t count_of(const std::string& values, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = values.find(part); at != std::string::npos;
       at = values.find(part, at + 1)) {
    if (at == 0 || values[at - 1] == ' ') ++count;
  }
  return count;
}

}  // namespace

// Each contribution once, in the term of who asks, and those of one step together where they are
// summed.
void System::check_update(const ModelServer& server, const Effect& effect) {
  if (effect.op.kind != Op::Kind::kUpdate) return;
  for (const Ticket ticket : effect.tickets) {
    if (term_of(ticket) != server.replica.term()) fault_ = "an update is made in another term";
  }
  if (!effect.tickets.empty() && term_of(effect.ticket) != server.replica.term()) {
    fault_ = "an update is asked for in another term";
  }
  for (std::size_t i = 0; i < effect.op.members.size(); ++i) {
    const Member& member = effect.op.members[i];
    if (count_of(server.values, contribution(member.worker, member.clock - 1)) != 0) {
      fault_ = fmt::format("worker {}'s step {} is applied twice", member.worker, member.clock - 1);
    }
    if (i < effect.tickets.size() && (worker_of(effect.tickets[i]) != member.worker ||
                                      clock_of(effect.tickets[i]) != member.clock - 1)) {
      fault_ = "an update is made of other requests than it says";
    }
    if (options_.consistency.sums && member.clock != effect.op.members[0].clock) {
      fault_ = "contributions to different steps are summed";
    }
  }
}

// What a worker reads for a step holds all steps of all members that it may rely on.
void System::check_read(const ModelServer& server, Ticket ticket) {
  if (!server.open.contains(ticket)) fault_ = "a request is read for that is answered already";
  const Request request = request_of(ticket);
  if (request == Request::kInit || request == Request::kEnter) return;
  // Not for one who has gone on since.
  if (workers_.at(worker_of(ticket)).clock != clock_of(ticket)) return;
  const std::int64_t step = clock_of(ticket) + (request == Request::kPull ? 0 : 1);
  for (const Member& member : server.replica.state().members) {
    const std::int64_t bound = options_.consistency.bound;
    if (bound != Consistency::kUnbounded && member.clock < step - bound) {
      fault_ =
          fmt::format("a read for step {} with worker {} at {}", step, member.worker, member.clock);
    }
    if (options_.consistency.sums && member.worker == worker_of(ticket) && member.clock != step &&
        member.clock != step + 1) {
      fault_ = fmt::format("a read for step {} of a range that is at {}", step, member.clock);
    }
  }
}

// Whoever answers now, or would after a loss, holds all that was acknowledged and all that was
// seen.
void System::check_holders() {
  if (views_.empty() || !fault_.empty() || failed()) return;
  const RangeView& range = views_.back()->ranges[0];
  for (const ServerId id : {range.primary, range.backup_ready ? range.backup : kNobody}) {
    if (id == kNobody) continue;
    const std::string& values = servers_.at(id)->values;
    for (const auto& [worker, clock] : *acknowledged_) {
      if (count_of(values, contribution(worker, clock)) != 1) {
        fault_ = fmt::format("server {} holds worker {}'s acknowledged step {} {} times", id,
                             worker, clock, count_of(values, contribution(worker, clock)));
      }
    }
    for (const auto& [worker, state] : workers_) {
      if (!values.starts_with(state.seen)) {
        fault_ = fmt::format("server {} does not hold what worker {} has seen", id, worker);
      }
    }
  }
}

// Who is held by two that live is so in the next view, too: what is moved for balance is never left
// on one server.
void System::check_redundancy(const View& before, const View& after) {
  const auto lives = [&](ServerId id) {
    return std::any_of(after.servers.begin(), after.servers.end(),
                       [id](const ServerView& server) { return server.id == id; });
  };
  const auto held_twice = [&](const RangeView& range) {
    return range.backup_ready && lives(range.primary) && lives(range.backup);
  };
  if (held_twice(before.ranges[0]) && !held_twice(after.ranges[0])) {
    fault_ = fmt::format("view {} leaves the range on one server", after.term);
  }
}

// Who follows a primary in its term has what that had at some time.
void System::check_followers() {
  for (const auto& [id, server] : servers_) {
    const auto primary = servers_.find(server->replica.range().primary);
    if (!server->runs || primary == servers_.end() || !primary->second->runs ||
        primary->second->replica.term() != server->replica.term()) {
      continue;
    }
    if (!primary->second->values.starts_with(server->values)) {
      fault_ = fmt::format("server {} follows server {} with other values", id, primary->first);
    }
  }
}

}  // namespace trireme::ps
