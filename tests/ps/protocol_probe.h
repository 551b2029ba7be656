// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// ProtocolProbe: sees all of the protocol's objects, and writes what makes two of them different.
#pragma once

#include <cstdint>
#include <string>

#include "tests/ps/protocol_model.h"

namespace trireme::ps {

// Appends all that makes two states different.
struct ProtocolProbe {
  std::string bytes;

  // The primary knows that its backup has everything up to the position.
  static bool has(const RangeReplica& primary, Term term, std::int64_t position) {
    return primary.term_ == term && primary.acked_ >= position &&
           (primary.range_.backup_ready || primary.state_taken_);
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
    add(range.backup_ready);
    add(range.since);
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
    add_all(replica.log_);
    add(replica.acked_);
    add(replica.waits_);
    add(replica.state_sent_);
    add(replica.state_taken_);
    add(replica.answered_);
  }
  void add(const Message& message) {
    add(static_cast<std::int64_t>(message.kind));
    add(message.to);
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
    add(membership.changed_);
  }
};

}  // namespace trireme::ps
