// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What rank 0 asks of one connection before it counts as a rank: the handshake (handshake.h), then
// who it is. Pure: frames in, frames out.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme {

class Admission {
 public:
  enum class Stage { kHello, kProof, kMember, kJoined };

  // secret must outlive it.
  explicit Admission(std::string_view secret) : secret_(secret) {}

  // Takes the next frame and appends what there is to answer. Throws ProtocolError when it is not
  // the one that is due, says something impossible, or does not prove that its sender knows the
  // secret.
  void handle(const Frame& frame, std::string& answer);

  Stage stage() const { return stage_; }
  // Nothing that it says is to be believed.
  bool stranger() const { return stage_ == Stage::kHello || stage_ == Stage::kProof; }
  // What it says it is; proved once it is no stranger.
  const Hello& hello() const { return hello_; }
  // Once it has joined: who it is, and how long it is willing to wait.
  const Member& member() const { return member_; }
  std::chrono::milliseconds patience() const { return patience_; }

 private:
  void challenge(const Frame& frame, std::string& answer);
  void trust(const Frame& frame, std::string& answer);
  void introduce(const Frame& frame);

  const std::string_view secret_;
  Stage stage_ = Stage::kHello;
  std::string hello_bytes_;
  std::string nonce_;
  Hello hello_;
  Member member_;
  std::chrono::milliseconds patience_{0};
};

}  // namespace trireme
