// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What leaves on one connection: frames of any thread, by priority, from the memory in which they
// lie.
//
// Whoever has put a frame and finds nobody sending does so, on its own thread, until the socket
// takes no more; then the connection's I/O thread goes on when it does. At most one thread sends at
// a time, and nobody waits for it to put a frame.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trireme/comm/rpc/aligned_bytes.h"

namespace trireme {

struct OutgoingFrame {
  std::string front;  // head and header
  // What follows: the caller's memory, until the frame has left or was withdrawn.
  std::vector<std::span<const std::byte>> payload;
  AlignedBytes owned;  // for a payload that has no other owner
  std::int64_t priority = 0;
};

// Any thread may call any function.
class Outbox {
 public:
  // Of one frame that was put.
  using Ticket = std::pair<std::int64_t, std::uint64_t>;

  // fd is non-blocking and stays the owner's, open until stop(). watch(true) asks the I/O thread to
  // call send() when the socket takes bytes again, watch(false) takes that back.
  Outbox(int fd, std::function<void(bool)> watch) : fd_(fd), watch_(std::move(watch)) {}

  // Queues the frame behind those of its priority; drops it after stop(). Does not send.
  Ticket put(OutgoingFrame frame);
  // Sends what the socket takes, a bounded amount. writable: the I/O thread has seen that it takes
  // bytes.
  void send(bool writable = false);
  // When it returns, nothing reads the frame's payload any longer: it has left, or was still queued
  // and never will, or was copied. True unless it had left.
  bool withdraw(const Ticket& ticket);
  // When it returns, no thread sends nor will. Idempotent.
  void stop();

 private:
  enum class Sent { kAll, kSome, kBroken };
  struct Current {
    Ticket ticket;
    OutgoingFrame frame;
    // What leaves next: a byte of a piece. Piece 0 is the front, then come those of the payload.
    std::size_t piece = 0;
    std::size_t offset = 0;

    std::size_t pieces() const { return 1 + frame.payload.size(); }
    std::span<const std::byte> piece_at(std::size_t number) const;
    bool done() const { return piece == pieces(); }
    void advance(std::size_t bytes);
  };

  void drain(std::unique_lock<std::mutex>& lock);
  Sent send_some(std::size_t& budget);
  void keep_payload();

  const int fd_;
  const std::function<void(bool)> watch_;

  std::mutex mutex_;
  std::condition_variable idle_;
  // Guarded by mutex_.
  std::map<Ticket, OutgoingFrame> queue_;
  std::uint64_t next_ = 0;
  bool sending_ = false;
  bool watching_ = false;  // the I/O thread goes on
  bool stopped_ = false;

  // Of the thread that sends; guarded by mutex_ while none does.
  std::optional<Current> current_;
};

}  // namespace trireme
