// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the threads of a rank wait for, for other ranks that ask.
//
// A rank whose deadline passes knows who has not come to it, but that rank may only be waiting for
// a third one, in the same operation or in one of another group. So it asks all ranks what they
// wait for (ControlPlane::ask). Whoever is stopped does not answer; whoever lives and waits for
// nobody is late; whoever waits leads to the next. Ranks that wait for one another in a circle have
// called operations in different orders, and the answers say which.
#pragma once

#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

struct GroupScope;
class OperationName;

// One wait, as it travels.
struct Wait {
  int peer = 0;           // rank of the world
  std::string operation;  // "group dp: operation 3, barrier()"
};
std::string encode_waits(const std::vector<Wait>& waits);
// Of what another rank says: throws nothing, leaves out what is no wait.
std::vector<Wait> decode_waits(std::string_view text);

// Any thread may call any function.
class WaitBoard {
 public:
  // Posted as long as it exists. Everything must outlive it.
  class Posted {
   public:
    // peer is a rank of the group.
    Posted(const GroupScope& scope, const OperationName& operation, int peer);
    ~Posted();
    Posted(const Posted&) = delete;
    Posted& operator=(const Posted&) = delete;

   private:
    friend class WaitBoard;
    const GroupScope& scope_;
    const OperationName& operation_;
    const int peer_;
    std::list<const Posted*>::iterator place_;
  };

  std::vector<Wait> waits() const;
  // waits() stays as it is now: this rank fails, and others will still ask what it waited for.
  void freeze();

 private:
  std::vector<Wait> read() const;  // mutex_ held

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::list<const Posted*> posted_;
  std::optional<std::vector<Wait>> frozen_;
};

// Who keeps the given ranks of the group from coming.
struct Culprits {
  std::vector<int> ranks;                   // of the world; empty when all wait for one another
  std::vector<std::pair<int, Wait>> waits;  // what was heard of the others, by rank of the world
};
// Asks, along the chain of those who wait, for at most a second. Throws the latched failure.
Culprits find_culprits(const GroupScope& scope, const std::vector<int>& missing);

}  // namespace trireme
