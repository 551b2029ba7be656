// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What travels between coordinator, servers and workers as headers of calls (comm/rpc). Pure. All
// decode functions throw ProtocolError for bytes that are no such header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/ps/protocol/range_replica.h"
#include "trireme/ps/protocol/view.h"

namespace trireme::ps {

enum class Method : std::uint32_t {
  // To the coordinator.
  kRegister = 1,  // Registration -> Registered
  kDeclare,       // a JobLayout -> the job's JobLayout
  kWatch,         // Watch -> Announcement, when there is a newer view or after a while
  kReady,         // Ready: of a primary
  kLeave,         // id: a worker has done its work, or a server goes
  // To a server, about a range: RangeRequest -> RangeReply.
  kInit,
  kPush,
  kCommit,
  kPull,
  kPeek,
  kEnter,
  kSnapshot,  // the range's state, as of the asker's step
  // From the primary to a follower: Replication -> Replicated.
  kReplicate,
  kTakeState,
  // To a server: -> ServerReport.
  kReport,
};

// Status of all replies: an Answer's number, or one of these.
constexpr std::uint32_t kStatusOk = 0;
constexpr std::uint32_t kStatusUnknown = 100;  // the coordinator does not know the id (any more)
constexpr std::uint32_t kStatusRefused = 101;  // header: why
constexpr std::uint32_t kStatusNotHere = 102;  // the server does not know the range yet
constexpr std::uint32_t kStatusTaken = 103;    // header: by whom, who may be gone: ask again

struct Registration {
  bool is_server = false;
  int index = 0;        // of the server, or rank of the worker
  std::string address;  // of the server
  int port = 0;
};
struct Registered {
  std::int64_t id = 0;
  bool begun = false;             // the job has, before this process came
  std::int64_t heartbeat_ms = 0;  // silence after which a process counts as gone
};

struct Watch {
  std::int64_t id = 0;
  Term known = 0;
};

// What the view waits for at a range has come (Membership::ready).
struct Ready {
  std::int64_t id = 0;
  Term term = 0;
  std::uint32_t range = 0;
};

// What a view comes with.
struct Announcement {
  View view;
  bool finished = false;  // all workers have done their work
  std::string layout;     // JobLayout::encode(); empty where the watcher has it
};

struct RangeRequest {
  std::uint32_t range = 0;
  Term term = 0;
  Asker asker;
  bool then_read = false;
  bool empty = false;  // a push without a contribution
  // Of a push, or of the commit.
  double learning_rate = 0;
  double gradient_scale = 1;   // multiplied with the mean
  double weight = 1;           // what the contribution counts for in the mean
  bool skip = false;           // of a commit: the step is counted, its sum is not applied
  bool assign = false;         // the update is weights, which take the place of the range's
  std::string codec;           // of a dense push's payload; empty: f32
  std::vector<double> extras;  // summed with the contributions
  std::string lists;           // of rows in place (row_request.h)
  // Of kSnapshot: the file that the server writes; empty: the state is the reply's payload. Of
  // kInit: the file that it reads in place of the payload, and the file's digest.
  std::string file;
  std::string digest;
};
struct RangeReply {
  Term term = 0;                   // the server's
  std::int64_t clock = 0;          // the asker's, in the range
  double weight = 0;               // kSummed: of all contributions
  std::vector<double> extras;      // kSummed, or of the last update
  std::vector<double> block_sums;  // kSummed: of squares, by block of the range
  // Of a push whose step was committed already: the commit's gradient_scale, 0 where it skipped the
  // step. -1: not known.
  double committed_scale = -1;
  std::string text;  // kStatusRefused: why; kSnapshot: the file's digest
};

struct Replication {
  std::uint32_t range = 0;
  Term term = 0;
  std::int64_t position = 0;
  Op op;                        // kReplicate
  double learning_rate = 0;     // kReplicate
  double gradient_scale = 1;    // kReplicate: of the sum
  bool empty = false;           // kReplicate: the update has no payload
  bool assign = false;          // kReplicate: as RangeRequest's
  double committed_scale = -1;  // RangeReply's, of the update, or of the last one
  ReplicaState state;           // kTakeState
  std::uint32_t part = 0;       // kTakeState: of parts
  std::uint32_t parts = 1;
};
struct Replicated {
  Term term = 0;
  std::int64_t position = -1;  // -1: nothing is acknowledged
};

// What a server has seen of a job: for logs and for who wants to know why it is slow.
struct ServerReport {
  std::int64_t updates = 0;
  std::int64_t rows = 0;          // of sparse tables, of ranges that it is primary of
  std::int64_t memory_bytes = 0;  // of sparse tables
  // How many single pushes were as many updates late as the index says; the last one: that or more.
  std::vector<std::int64_t> staleness;
  // By rank: how long the others waited for its push after all of theirs had come, in all ranges.
  std::vector<double> waited_for_us;
  std::vector<std::int32_t> awaited;       // ranks that ranges wait for now
  std::int64_t ranges_without_values = 0;  // that are asked for, and whose first were never given
};

std::string encode(const Registration& message);
std::string encode(const Registered& message);
std::string encode(const Watch& message);
std::string encode(const Ready& message);
std::string encode(const Announcement& message);
std::string encode(const RangeRequest& message);
std::string encode(const RangeReply& message);
std::string encode(const Replication& message);
std::string encode(const Replicated& message);
std::string encode(const ServerReport& message);

// decode<Watch>(bytes)
template <class Message>
Message decode(std::string_view bytes);

}  // namespace trireme::ps
