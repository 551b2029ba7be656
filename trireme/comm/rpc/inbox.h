// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Puts the frames of one connection together. Small ones are read together, a large payload goes
// from the socket straight to where it belongs.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/rpc/wire.h"

namespace trireme {

// Takes what has arrived. Both functions may throw, which ends the connection.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // Where the payload that follows goes, head.inline_bytes() of them and not none; null: nowhere.
  virtual std::byte* place_for(const RpcHead& head) = 0;
  // The whole frame is there.
  virtual void deliver(const RpcHead& head, std::string header) = 0;
};

// Not thread-safe; pure but for read_from().
class Inbox {
 public:
  // Takes bytes as they came. Throws ProtocolError, and what the sink throws.
  void feed(std::string_view bytes, FrameSink& sink);
  // Reads what there is, a bounded amount, without blocking. Errors as feed().
  IoStatus read_from(const FileDescriptor& fd, FrameSink& sink);
  // The rest of the payload that is arriving goes nowhere.
  void drop_payload() { target_ = nullptr; }

 private:
  enum class Stage { kHead, kHeader, kPayload };

  // How much of bytes it took.
  std::size_t take(std::string_view bytes, FrameSink& sink);
  void advance(FrameSink& sink);
  std::size_t missing() const;

  Stage stage_ = Stage::kHead;
  std::string head_bytes_;
  RpcHead head_;
  std::string header_;
  std::byte* target_ = nullptr;  // of the payload; null: it goes nowhere
  std::size_t received_ = 0;     // of the payload
  std::array<char, 16384> staging_;
};

}  // namespace trireme
