// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Membership: what the coordinator decides: which view follows when servers and workers come and
// go. Pure: told what happened, it says who holds what; it reads no clock and sends nothing.
//
//   membership.server_down(3);
//   if (membership.publish()) send(membership.view());
//
// The first view is made when all servers and workers are there and the ranges are declared. From
// then on: where a primary is lost its ready backup takes its place; where a backup is lost, or
// there is none, another server becomes backup and is sent the state; a server that has little to
// do is given ranges to back up, and becomes primary of some of them when it has them. A range
// whose primary is lost while no backup is ready is lost: view().failure says so.
//
// Nothing that is moved for balance is held by one server alone meanwhile. A backup is replaced by
// a successor, which takes its place when it has everything. Primary and backup change places by a
// handover: a term without changes, at whose end both hold the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "trireme/ps/protocol/view.h"

namespace trireme::ps {

struct MembershipOptions {
  int servers = 1;  // of the first view
  int workers = 1;

  auto operator<=>(const MembershipOptions&) const = default;
};

// Not thread-safe. Copyable.
class Membership {
 public:
  explicit Membership(const MembershipOptions& options) : options_(options) {}

  // Who comes takes the place of a server of the same index, or of a worker of the same rank. Ids
  // are the caller's, and new.
  void server_up(const ServerView& server);
  void server_down(ServerId server);
  void worker_up(const WorkerView& worker);
  void worker_down(WorkerId worker);
  // Bytes of each range. Once. Without backups each range is held once, and is lost with its
  // server.
  void declare(std::vector<std::int64_t> range_bytes, bool backups = true);
  bool declared() const { return !bytes_.empty(); }
  // What the primary of the range was waiting for in this term has come: its backup, or the
  // successor of that, has everything, or may take the primary's place (handover). Of another term:
  // ignored.
  void ready(Term term, std::size_t range);

  // The job cannot go on.
  void fail(const std::string& why) { view_.failure = why; }

  // Makes the next view if anything has changed. True: view() is a new one.
  bool publish();
  const View& view() const { return view_; }

  auto operator<=>(const Membership&) const = default;

 private:
  friend struct ProtocolProbe;  // sees all of it, for whoever explores all states
  struct Load {
    std::int64_t primary_bytes = 0;
    std::int64_t all_bytes = 0;
  };

  bool lives(ServerId server) const { return servers_.contains(server); }
  std::map<ServerId, Load> loads() const;
  void begin();
  void take_reports();
  void replace_lost();
  void assign_backups();
  bool settled() const;
  void move_backups();
  void move_primaries();
  void give_successor(RangeView& range, ServerId server);

  MembershipOptions options_;
  std::vector<std::int64_t> bytes_;  // of ranges
  bool backups_ = true;
  std::map<ServerId, ServerView> servers_;
  std::map<WorkerId, WorkerView> workers_;
  std::set<std::size_t> reported_;  // ranges, in this term
  bool changed_ = false;
  View view_;
};

}  // namespace trireme::ps
