// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Point-to-point messages of MPI on a communicator of one world's own: nothing that the program
// sends itself can be taken for ours. Nothing here blocks, but for the making of a channel.
//
// Messages of one sender, receiver and tag arrive in the order in which they were sent, whatever
// order they complete in: MPI promises it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "trireme/base/deadline.h"
#include "trireme/comm/failure.h"

namespace trireme {

class MpiChannel {
 public:
  static constexpr int kAnySource = -1;
  // The longest message: MPI counts bytes in an int.
  static constexpr std::size_t kMostBytes = std::size_t{1} << 30;

  struct Completion {
    int source = 0;         // receives
    std::size_t bytes = 0;  // receives
    bool cancelled = false;
    std::string error;  // empty when there was none
  };

  // Whoever has messages under way. Kept by the channel until they are complete, with the memory
  // that it owns.
  class Owner {
   public:
    virtual ~Owner() = default;
    // Once for each message, in poll(). May start messages.
    virtual void complete(const Completion& completion) = 0;
  };

  // Collective over MPI_COMM_WORLD: duplicates it. MPI must have been started. Takes MPI's lock.
  // Throws TimeoutError, CommError, the latched failure.
  MpiChannel(const FailureLatch& latch, const Deadline& deadline);
  // Does not communicate. The communicator stays until the process ends: MPI_Comm_free is
  // collective.
  ~MpiChannel();

  int rank() const;
  int size() const;
  int largest_tag() const;

  // For all below MPI's lock is held. Memory stays until the completion. synchronous: completes
  // only when the receiver has a receive for it. Throw CommError.
  void send(std::shared_ptr<Owner> owner, int to, int tag, const void* data, std::size_t bytes,
            bool synchronous);
  void receive(std::shared_ptr<Owner> owner, int from, int tag, void* data, std::size_t bytes);
  // Tries to end the owner's receives; each completes all the same.
  void cancel(const Owner& owner);
  // Moves what can be moved and reports what is complete. True when there was something.
  bool poll();
  // Messages under way: all, an owner's.
  std::size_t under_way() const;
  std::size_t under_way(const Owner& owner) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trireme
