// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/protocol/membership.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace trireme::ps {

void Membership::server_up(const ServerView& server) {
  std::erase_if(servers_, [&](const auto& known) { return known.second.index == server.index; });
  servers_[server.id] = server;
  changed_ = true;
}

void Membership::server_down(ServerId server) {
  if (servers_.erase(server) > 0) changed_ = true;
}

void Membership::worker_up(const WorkerView& worker) {
  std::erase_if(workers_, [&](const auto& known) { return known.second.rank == worker.rank; });
  workers_[worker.id] = worker;
  changed_ = true;
}

void Membership::worker_down(WorkerId worker) {
  if (workers_.erase(worker) > 0) changed_ = true;
}

void Membership::declare(std::vector<std::int64_t> range_bytes, bool backups) {
  if (declared()) return;
  bytes_ = std::move(range_bytes);
  backups_ = backups;
  changed_ = true;
}

void Membership::ready(Term term, std::size_t range) {
  if (term != view_.term || range >= view_.ranges.size()) return;
  const RangeView& view = view_.ranges[range];
  const bool waits =
      view.backup != kNobody && (!view.backup_ready || view.successor != kNobody || view.handover);
  if (waits && reported_.insert(range).second) changed_ = true;
}

bool Membership::publish() {
  if (!changed_ || !view_.failure.empty()) return false;
  const bool begins = view_.term == 0;
  if (begins && (!declared() || std::cmp_less(servers_.size(), options_.servers) ||
                 std::cmp_less(workers_.size(), options_.workers))) {
    return false;
  }
  changed_ = false;
  ++view_.term;
  view_.servers.clear();
  for (const auto& [id, server] : servers_) view_.servers.push_back(server);
  view_.workers.clear();
  for (const auto& [id, worker] : workers_) view_.workers.push_back(worker);
  std::sort(view_.workers.begin(), view_.workers.end(),
            [](const WorkerView& left, const WorkerView& right) { return left.rank < right.rank; });
  if (begins) begin();
  take_reports();
  replace_lost();
  if (!view_.failure.empty()) return true;
  assign_backups();
  if (settled()) {
    move_backups();
    move_primaries();
  }
  return true;
}

// Bytes that each server holds.
std::map<ServerId, Membership::Load> Membership::loads() const {
  std::map<ServerId, Load> loads;
  for (const auto& [id, server] : servers_) loads[id];
  for (std::size_t i = 0; i < view_.ranges.size(); ++i) {
    const RangeView& range = view_.ranges[i];
    if (lives(range.primary)) {
      loads[range.primary].primary_bytes += bytes_[i];
      loads[range.primary].all_bytes += bytes_[i];
    }
    if (lives(range.backup)) loads[range.backup].all_bytes += bytes_[i];
    if (lives(range.successor)) loads[range.successor].all_bytes += bytes_[i];
  }
  return loads;
}

// Largest first, each to the server with the fewest bytes as primary; the backup is the next server
// but the primary with the fewest bytes in all. All are ready: nobody has anything yet.
void Membership::begin() {
  view_.ranges.assign(bytes_.size(), {});
  std::vector<std::size_t> order(bytes_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
    return bytes_[left] > bytes_[right];
  });
  std::map<ServerId, Load> loads = this->loads();
  for (const std::size_t i : order) {
    RangeView& range = view_.ranges[i];
    range.backup_since = view_.term;
    range.primary = std::min_element(loads.begin(), loads.end(), [](const auto& l, const auto& r) {
                      return l.second.primary_bytes < r.second.primary_bytes;
                    })->first;
    loads[range.primary].primary_bytes += bytes_[i];
    loads[range.primary].all_bytes += bytes_[i];
    if (!backups_ || loads.size() < 2) continue;
    for (const auto& [id, load] : loads) {
      if (id == range.primary) continue;
      if (range.backup == kNobody || load.all_bytes < loads[range.backup].all_bytes) {
        range.backup = id;
      }
    }
    range.backup_ready = true;
    loads[range.backup].all_bytes += bytes_[i];
  }
}

// What the primaries were waiting for in the term before. A successor that is lost meanwhile does
// not take the place of a backup that may live.
void Membership::take_reports() {
  for (const std::size_t i : std::exchange(reported_, {})) {
    RangeView& range = view_.ranges[i];
    if (range.handover) {
      range = {.primary = range.backup,
               .backup = range.primary,
               .backup_since = view_.term,
               .backup_ready = true};
    } else if (range.backup_ready && !lives(range.successor)) {
      continue;
    } else if (range.backup_ready) {
      range = {.primary = range.primary,
               .backup = range.successor,
               .backup_since = range.successor_since,
               .backup_ready = true};
    } else {
      range.backup_ready = true;
    }
  }
}

// A successor is not ready, so a lost primary's place is its ready backup's. Under a new primary it
// has nothing; in a lost backup's place it keeps what it was sent.
void Membership::replace_lost() {
  for (std::size_t i = 0; i < view_.ranges.size(); ++i) {
    RangeView& range = view_.ranges[i];
    if (!lives(range.successor)) {
      range.successor = kNobody;
      range.successor_since = 0;
    }
    if (!lives(range.primary)) {
      if (!lives(range.backup) || !range.backup_ready) {
        view_.failure = fmt::format(
            "range {} of {} is lost: the server that held it is gone, and {}", i,
            view_.ranges.size(),
            lives(range.backup) ? "its backup had not received all of it yet" : "it had no backup");
        return;
      }
      range = {.primary = range.backup, .backup = range.successor, .backup_since = view_.term};
    }
    if (range.backup != kNobody && !lives(range.backup)) {
      range = {.primary = range.primary,
               .backup = range.successor,
               .backup_since = range.successor_since};
    }
  }
}

void Membership::assign_backups() {
  if (!backups_ || servers_.size() < 2) return;
  std::map<ServerId, Load> loads = this->loads();
  for (std::size_t i = 0; i < view_.ranges.size(); ++i) {
    RangeView& range = view_.ranges[i];
    if (range.backup != kNobody) continue;
    for (const auto& [id, load] : loads) {
      if (id == range.primary) continue;
      if (range.backup == kNobody || load.all_bytes < loads[range.backup].all_bytes) {
        range.backup = id;
      }
    }
    range.backup_since = view_.term;
    range.backup_ready = false;
    loads[range.backup].all_bytes += bytes_[i];
  }
}

// Nothing is moved for balance while anything is held only once, or is being moved.
bool Membership::settled() const {
  return backups_ && servers_.size() >= 2 &&
         std::all_of(view_.ranges.begin(), view_.ranges.end(), [](const RangeView& range) {
           return range.backup_ready && range.successor == kNobody && !range.handover;
         });
}

// A server that holds less than half of what is fair backs up what others did until it has its
// share. Smaller differences are not worth the states that would be sent.
void Membership::move_backups() {
  std::map<ServerId, Load> loads = this->loads();
  std::int64_t all = 0;
  for (const auto& [id, load] : loads) all += load.all_bytes;
  const std::int64_t fair = all / static_cast<std::int64_t>(loads.size());
  for (auto& [id, load] : loads) {
    if (load.all_bytes >= fair / 2) continue;
    for (std::size_t i = 0; i < view_.ranges.size() && load.all_bytes < fair; ++i) {
      RangeView& range = view_.ranges[i];
      if (range.primary == id || range.backup == id) continue;
      Load& giver = loads[range.backup];
      if (giver.all_bytes - bytes_[i] < fair) continue;
      giver.all_bytes -= bytes_[i];
      load.all_bytes += bytes_[i];
      give_successor(range, id);
    }
  }
}

void Membership::give_successor(RangeView& range, ServerId server) {
  range.successor = server;
  range.successor_since = view_.term;
}

// Primary and ready backup change places where that brings their shares closer.
void Membership::move_primaries() {
  std::map<ServerId, Load> loads = this->loads();
  for (std::size_t i = 0; i < view_.ranges.size(); ++i) {
    RangeView& range = view_.ranges[i];
    if (range.successor != kNobody) continue;
    Load& from = loads[range.primary];
    Load& to = loads[range.backup];
    if (from.primary_bytes - to.primary_bytes <= bytes_[i]) continue;
    from.primary_bytes -= bytes_[i];
    to.primary_bytes += bytes_[i];
    range.handover = true;
  }
}

}  // namespace trireme::ps
