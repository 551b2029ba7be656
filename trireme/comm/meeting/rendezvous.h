// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How the ranks of a job find one another: rank 0 listens, the others connect, prove that they
// belong to the job (handshake.h) and say who they are. When all are there and agree, each learns
// who everyone is; otherwise each learns why not.
//
// A stranger costs rank 0 at most kStrangerFrameLimit bytes and one of kMaxStrangers places for
// kStrangerTime, and delays nobody: all sockets are served by one poll loop, and when the places
// are full the one who has been a stranger longest has to go.
//
// The least patient rank decides how long everybody waits, so that rank 0, who knows which ranks
// are missing, is the first to give up and can tell the others.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/meeting/peer_process.h"
#include "trireme/comm/meeting/socket.h"
#include "trireme/comm/world.h"

namespace trireme {

constexpr std::size_t kMaxStrangers = 64;
constexpr std::chrono::milliseconds kStrangerTime = std::chrono::seconds(2);

struct Member {
  int rank = 0;
  std::string host_id;    // host_identity.h
  std::string host_name;  // for messages
  std::string ip;         // this rank's address on the network that leads to rank 0
  std::string process_space;
  std::int64_t pid = 0;
  // peer_process.h
  std::string last_words;
  std::uint64_t last_words_token = 0;
  // The caller's pairs, and what every two ranks must have in common.
  std::vector<std::pair<std::string, std::string>> fingerprint;
};

// A trusted connection to one rank.
struct Connection {
  FileDescriptor fd;
  FrameDecoder decoder{kMemberFrameLimit};
  std::string outbox;  // not sent yet
};

struct Meeting {
  std::vector<Member> members;            // by rank
  std::map<int, Connection> connections;  // rank 0: to every other rank; others: to rank 0
  std::unique_ptr<LastWords> last_words;
};

// Blocks until all ranks have met; size >= 2. listener, if any, stands for options.listen_fd.
// Errors: see join_world().
Meeting meet(const WorldOptions& options, FileDescriptor listener);

namespace detail {
// Without last_words, to which self points.
Meeting meet_as_rank_zero(const WorldOptions& options, Member self, FileDescriptor listener);
Meeting meet_as_member(const WorldOptions& options, Member self);

Member describe_self(const WorldOptions& options, const LastWords& last_words);
void encode_member(FieldWriter& writer, const Member& member);
Member decode_member(FieldReader& reader);
std::string encode_failure(const Failure& failure);
Failure decode_failure(std::string_view payload);
// The first key on which two ranks differ, as an error message; empty when they agree.
std::string fingerprint_difference(const Member& left, const Member& right);
// "rank 3", "ranks 1, 2, 5"; at most 16 are named.
std::string name_ranks(const std::vector<int>& ranks);
}  // namespace detail

}  // namespace trireme
