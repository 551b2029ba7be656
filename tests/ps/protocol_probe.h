// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ProtocolProbe: sees all of the protocol's objects, and writes what makes two of them different.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "tests/ps/protocol_model.h"

namespace trireme::ps {

// Appends all that makes two states different.
struct ProtocolProbe {
  std::string bytes;

  // The primary knows that its follower has everything up to the position.
  static bool knows(const RangeReplica& primary, ServerId follower, Term term,
                    std::int64_t position) {
    return primary.term_ == term &&
           std::any_of(primary.followers_.begin(), primary.followers_.end(),
                       [&](const RangeReplica::Follower& known) {
                         return known.id == follower && known.has_state &&
                                known.position >= position;
                       });
  }

  // The coordinator decides to move the range, for whatever balance it sees.
  static bool changed(const Membership& membership) { return membership.changed_; }
  static bool settled(const Membership& membership) {
    return membership.view_.term > 0 && !membership.changed_ && membership.settled();
  }
  static void move_backup(Membership& membership, ServerId server) {
    next_view(membership);
    membership.give_successor(membership.view_.ranges[0], server);
  }
  static void hand_over(Membership& membership) {
    next_view(membership);
    membership.view_.ranges[0].handover = true;
  }
  static void next_view(Membership& membership) {
    membership.changed_ = true;
    membership.publish();
  }

  void add(std::int64_t value) {
    // Most are small.
    if (value >= -1 && value < 254) {
      bytes += static_cast<char>(static_cast<unsigned char>(value + 1));
      return;
    }
    bytes += '\xff';
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void add(const std::string& text) {
    add(static_cast<std::int64_t>(text.size()));
    bytes += text;
  }
  void add(const Member& member) {
    add(member.worker);
    add(member.rank);
    add(member.clock);
  }
  void add(const Op& op) {
    add(static_cast<std::int64_t>(op.kind));
    add_all(op.members);
  }
  void add(const ReplicaState& state) {
    add(state.initialized);
    add(state.applied);
    add(state.updates);
    add(state.step);
    add_all(state.members);
  }
  void add(const RangeView& range) {
    add(range.primary);
    add(range.backup);
    add(range.backup_since);
    add(range.backup_ready);
    add(range.successor);
    add(range.successor_since);
    add(range.handover);
  }
  void add(const RangeReplica::Follower& follower) {
    add(follower.id);
    add(follower.since);
    add(follower.has_state);
    add(follower.position);
    add(follower.answered);
  }
  void add(const RangeReplica::Waiting& waiting) {
    add(waiting.ticket);
    add(waiting.asker.worker);
    add(waiting.asker.clock);
    add(waiting.then_read);
  }
  void add(const RangeReplica::Bound& bound) {
    add(bound.position);
    add(bound.ticket);
  }
  void add(const RangeReplica::LoggedOp& logged) {
    add(logged.position);
    add(logged.op);
  }
  void add(const RangeReplica& replica) {
    add(replica.term_);
    add(replica.range_);
    add(static_cast<std::int64_t>(replica.workers_.size()));
    add(replica.installed_);
    add(replica.state_);
    add(static_cast<std::int64_t>(replica.pushes_.size()));
    for (const auto& [worker, push] : replica.pushes_) add(push);
    add(replica.summed_);
    add_all(replica.pulls_);
    add_all(replica.bound_);
    add_all(replica.held_);
    add_all(replica.followers_);
    add(replica.reported_);
    add_all(replica.log_);
  }
  void add(const Message& message) {
    add(static_cast<std::int64_t>(message.kind));
    add(message.to);
    add(message.from);
    add(message.term);
    add(static_cast<std::int64_t>(message.request));
    add(message.worker);
    add(message.clock);
    add(static_cast<std::int64_t>(message.answer));
    add(message.position);
    add(message.op);
    add(message.state);
    add(message.values);
  }
  template <class All>
  void add_all(const All& all) {
    add(static_cast<std::int64_t>(all.size()));
    for (const auto& one : all) add(one);
  }
  void add(const Membership& membership) {
    for (const auto& [id, server] : membership.servers_) add(id);
    for (const auto& [id, worker] : membership.workers_) add(id);
    add(-1);
    for (const std::size_t range : membership.reported_) add(static_cast<std::int64_t>(range));
    add(membership.changed_);
  }
};

}  // namespace trireme::ps
