// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages between the ranks of a world, carried by MPI.
//
// MPI tells messages apart by communicator and by a tag, of which it promises 15 bits; lanes of
// groups have some 200 bits. So lanes are matched here, as a whole, and MPI's tags only say what
// kind of message it is:
//
//   letter    its lane, its number among the letters of its pair, its length, and its data when
//             that is at most kLetterBytes. All letters have one tag; kLetters receives for them,
//             from anybody, are always posted. A letter is matched with a receive of its lane, or
//             kept until there is one.
//   payload   longer data, in chunks under a tag that the letter names. The receiver posts receives
//             for it once its letter is matched.
//
// No payload can be taken for another: a tag is given again for the same receiver only when the
// last chunk that was sent under it, which is sent synchronously, has met its receive; MPI matches
// the messages of a tag in order, so all chunks before it had met theirs, and the receiver had
// posted all of them for the same message. Letters may complete in another order than they were
// sent; their numbers restore it.
//
// MPI moves data only while it is called. Whoever waits calls poll(), which serves the messages of
// all threads.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/control_plane.h"
#include "trireme/comm/message/message_port.h"
#include "trireme/comm/mpi/mpi_channel.h"

namespace trireme {

class MpiMesh;

// One message under way.
class MpiMessage final : public MpiChannel::Owner, public std::enable_shared_from_this<MpiMessage> {
 public:
  // The memory is the caller's again. Any thread.
  bool done() const { return done_.load(std::memory_order_acquire); }
  // Why it did not arrive; empty when it did. Once it is done.
  const std::string& error() const { return error_; }

 private:
  friend class MpiMesh;
  void complete(const MpiChannel::Completion& completion) override;

  MpiMesh* mesh_ = nullptr;
  bool sends_ = false;
  int peer_ = 0;  // of the world
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;  // of the data; of a receive: room, until its letter has come
  std::vector<std::byte> letter_;
  int tag_ = 0;                // of the payload
  std::size_t started_ = 0;    // bytes of payload
  std::size_t under_way_ = 0;  // messages of MPI
  std::atomic<bool> done_ = false;
  std::string error_;
};

class MpiMesh {
 public:
  // Collective over the world, which must be MPI_COMM_WORLD in any order of ranks. Throws
  // ConfigError: MPI cannot be had, has another number of ranks, or two ranks are one of MPI's;
  // TimeoutError; the latched failure.
  MpiMesh(int rank, int world_size, ControlPlane& control, const FailureLatch& latch,
          const Deadline& deadline);
  // Does not communicate.
  ~MpiMesh();
  MpiMesh(const MpiMesh&) = delete;
  MpiMesh& operator=(const MpiMesh&) = delete;

  // All of these: any thread. Ranks are of the world; memory stays until the message is done or
  // forgotten. Throw CommError.
  std::shared_ptr<MpiMessage> send(int to, std::uint64_t group, const Lane& lane, const void* data,
                                   std::size_t bytes);
  std::shared_ptr<MpiMessage> receive(int from, std::uint64_t group, const Lane& lane, void* data,
                                      std::size_t bytes);
  // Ends a message that is not done: MPI leaves its memory alone from now on. Where MPI can neither
  // end nor cancel it, which takes a peer that is gone or stuck, nobody calls MPI any more.
  void forget(MpiMessage& message);

  // After this rank's goodbye: waits for the others', for at most the time until the deadline, and
  // meanwhile moves what it has sent. The last call, by one thread.
  void leave(const Deadline& deadline);

  // Moves what can be moved. Returns a count that changes when something has come or gone. Throws
  // CommError, also when MPI may not be called any more.
  std::uint64_t poll();
  // Waits for at most the given time, or until the count is another.
  void rest(std::uint64_t count, std::chrono::microseconds time);

 private:
  friend class MpiMessage;

  // How a letter begins.
  struct Envelope {
    std::uint64_t group;
    std::uint64_t sequence;
    std::uint64_t order;  // among the letters of this pair, from 0
    std::uint64_t bytes;  // of the data
    std::int32_t lane_tag;
    std::int32_t payload_tag;  // kNoTag: the data is in the letter
    Lane::Purpose purpose;
    std::uint8_t unused[7];
  };
  struct Letter {
    Envelope envelope;
    std::vector<std::byte> data;
  };
  using Key = std::tuple<int, std::uint64_t, Lane::Purpose, int, std::uint64_t>;  // peer, lane
  // A receive for letters.
  struct LetterBox;
  struct Peer {
    int mpi_rank = -1;
    std::uint64_t next_out = 0;  // letter
    std::uint64_t next_in = 0;
    std::map<std::uint64_t, Letter> early;  // letters that came before next_in
    std::vector<int> free_tags;
    int next_tag = 1;  // never given; 0 is the letters'
  };

  void exchange_ranks(const Deadline& deadline);
  void end();
  // MPI's lock held for all of these.
  void post(const std::shared_ptr<LetterBox>& box);
  void take_letter(int mpi_rank, const std::byte* letter, std::size_t bytes);
  void deliver(int from, const Envelope& envelope, const std::byte* data);
  void accept(MpiMessage& message, const Envelope& envelope, const std::byte* data);
  int payload_tag(Peer& peer);
  void move_on(MpiMessage& message);
  void complete(MpiMessage& message, const MpiChannel::Completion& completion);
  void finish(MpiMessage& message);
  bool withdraw(const MpiMessage& message);
  void look();
  // False, and told in the log, when MPI reports an error.
  bool try_to_look();

  const int rank_;
  ControlPlane& control_;
  const FailureLatch& latch_;
  bool ended_ = false;  // used by leave() and the destructor only
  std::condition_variable changed_;
  // Guarded by MPI's lock.
  std::unique_ptr<MpiChannel> channel_;
  std::vector<Peer> peers_;   // by rank of the world
  std::vector<int> rank_of_;  // of the world, by rank of MPI
  std::map<Key, std::deque<Letter>> arrived_;
  std::map<Key, std::deque<std::shared_ptr<MpiMessage>>> awaited_;
  std::vector<std::shared_ptr<LetterBox>> boxes_;
  std::uint64_t count_ = 0;
  bool closing_ = false;
};

}  // namespace trireme
