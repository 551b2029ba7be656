// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/launcher_link.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/base/log.h"

namespace trireme::detail {
namespace {

// For the last words to leave.
constexpr std::chrono::milliseconds kFarewellTime = std::chrono::seconds(1);

// A message is a key and a number, in a frame of the control plane.
constexpr std::string_view kEnded = "launcher: workers ended";
constexpr std::string_view kFatal = "launcher: fatal";
constexpr std::string_view kInterrupt = "launcher: interrupt";
constexpr std::string_view kOver = "launcher: over";

std::string message(std::string_view what, int value) {
  return encode_frame(FrameType::kPut,
                      FieldWriter().text(what).u32(static_cast<std::uint32_t>(value)).bytes());
}

// The outcome as a number, one byte each.
int encode_outcome(const WorkersOutcome& outcome) {
  return outcome.first_failure | outcome.failure_when_ending << 8 | outcome.one_succeeded << 16;
}

WorkersOutcome decode_outcome(int value) {
  return {.one_succeeded = (value >> 16 & 1) != 0,
          .first_failure = value & 0xff,
          .failure_when_ending = value >> 8 & 0xff};
}

FileDescriptor copy_of(const FileDescriptor& fd) {
  if (!fd) return {};
  FileDescriptor copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) throw_error<Error>("no descriptor for the launchers' meeting: {}", strerror(errno));
  return copy;
}

// The meeting calls the launchers ranks.
Meeting meet_launchers(const WorldOptions& options, FileDescriptor listener) {
  constexpr std::string_view kWhat = "the launchers of the nodes, here ranks by node, did not meet";
  try {
    return meet(options, std::move(listener));
  } catch (const ConfigError& error) {
    throw_error<ConfigError>("{}: {}", kWhat, error.what());
  } catch (const CommError& error) {
    throw_error<CommError>("{}: {}", kWhat, error.what());
  }
}

}  // namespace

void WorkersOutcome::add(const WorkersOutcome& other) {
  one_succeeded |= other.one_succeeded;
  if (first_failure == 0) first_failure = other.first_failure;
  if (failure_when_ending == 0) failure_when_ending = other.failure_when_ending;
}

int WorkersOutcome::status() const {
  if (failure_when_ending != 0) return failure_when_ending;
  return one_succeeded ? 0 : first_failure;
}

LauncherLink::LauncherLink(const WorldOptions& options, const FileDescriptor& listener)
    : node_(options.rank) {
  Meeting meeting = meet_launchers(options, copy_of(listener));
  for (auto& [node, connection] : meeting.connections) {
    const Member& member = meeting.members[static_cast<std::size_t>(node)];
    peers_.emplace(node, Peer{std::move(connection),
                              fmt::format("the launcher of node {} ({})", node, member.host_name)});
  }
}

LauncherLink::~LauncherLink() {
  const Deadline deadline = Deadline::after(kFarewellTime);
  for (auto& [node, peer] : peers_) {
    Connection& connection = peer.connection;
    while (write_available(connection.fd, connection.outbox) == IoStatus::kOk &&
           !connection.outbox.empty() && !deadline.expired()) {
      pollfd ready{connection.fd.get(), POLLOUT, 0};
      poll(&ready, 1, static_cast<int>(deadline.remaining().count()));
    }
  }
}

void LauncherLink::append_waits(std::vector<pollfd>& waits) const {
  for (const auto& [node, peer] : peers_) {
    const bool unsent = !peer.connection.outbox.empty();
    waits.push_back(
        {peer.connection.fd.get(), static_cast<short>(POLLIN | (unsent ? POLLOUT : 0)), 0});
  }
}

std::vector<LauncherEvent> LauncherLink::move() {
  std::vector<LauncherEvent> events;
  std::vector<int> lost;
  for (auto& [node, peer] : peers_) {
    Connection& connection = peer.connection;
    std::string bytes;
    bool closed = read_available(connection.fd, bytes) == IoStatus::kClosed;
    try {
      connection.decoder.feed(bytes);
      while (const std::optional<Frame> frame = connection.decoder.next()) {
        handle(node, *frame, events);
      }
    } catch (const ProtocolError& error) {
      log_error("{} does not keep to the protocol: {}", peer.name, error.what());
      closed = true;
    }
    closed |= write_available(connection.fd, connection.outbox) == IoStatus::kClosed;
    if (closed) lost.push_back(node);
  }
  for (const int node : lost) lose(node, events);
  check_over(events);
  return events;
}

void LauncherLink::handle(int from, const Frame& frame, std::vector<LauncherEvent>& events) {
  if (frame.type != FrameType::kPut) throw_error<ProtocolError>("an unexpected frame");
  FieldReader reader(frame.payload);
  const std::string what = reader.text();
  const int value = static_cast<int>(reader.u32());
  reader.finish();
  Peer& peer = peers_.at(from);
  if (what == kEnded && node_ == 0) {
    if (std::exchange(peer.workers_ended, true)) throw_error<ProtocolError>("ended twice");
    outcome_.add(decode_outcome(value));
  } else if (what == kOver && node_ != 0) {
    over_ = true;
    events.push_back({LauncherEvent::Kind::kOver, value, peer.name});
  } else if (what == kFatal) {
    over_ = true;
    send_to_all_but(from, what, value);
    events.push_back({LauncherEvent::Kind::kFatal, value, peer.name});
  } else if (what == kInterrupt) {
    send_to_all_but(from, what, value);
    events.push_back({LauncherEvent::Kind::kInterrupt, value, peer.name});
  } else {
    throw_error<ProtocolError>("an unexpected message '{}'", what);
  }
}

void LauncherLink::lose(int node, std::vector<LauncherEvent>& events) {
  const Peer peer = std::move(peers_.at(node));
  peers_.erase(node);
  if (over_) return;
  if (node_ != 0) {
    log_error("{} is lost, and with it the coordinator", peer.name);
    events.push_back({LauncherEvent::Kind::kFatal, 1, peer.name});
    over_ = true;
    return;
  }
  log_error("{} is lost, with its servers{}", peer.name,
            peer.workers_ended ? "; its workers had ended" : " and workers");
  if (!peer.workers_ended) outcome_.add({.first_failure = 1});
}

void LauncherLink::check_over(std::vector<LauncherEvent>& events) {
  const auto ended = [](const auto& entry) { return entry.second.workers_ended; };
  if (node_ != 0 || over_ || !own_ended_ || !std::ranges::all_of(peers_, ended)) return;
  over_ = true;
  send_to_all_but(node_, kOver, outcome_.status());
  events.push_back({LauncherEvent::Kind::kOver, outcome_.status(), "this launcher"});
}

void LauncherLink::workers_ended(const WorkersOutcome& outcome) {
  own_ended_ = true;
  if (node_ == 0) {
    outcome_.add(outcome);
  } else {
    send_to_all_but(node_, kEnded, encode_outcome(outcome));
  }
}

void LauncherLink::fatal(int status) {
  over_ = true;
  send_to_all_but(node_, kFatal, status);
}

void LauncherLink::interrupt(int signal) { send_to_all_but(node_, kInterrupt, signal); }

void LauncherLink::send_to_all_but(int node, std::string_view what, int value) {
  for (auto& [other, peer] : peers_) {
    if (other != node) peer.connection.outbox += message(what, value);
  }
}

}  // namespace trireme::detail
