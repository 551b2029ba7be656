// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The ends of the processes of this host's other ranks, as the kernel tells them (pidfd), and what
// those ranks said last. News between ranks pass through rank 0; this way works when rank 0 is
// stopped or slow.
//
// That a process ended does not say whether its rank left on purpose, was lost, or gave up because
// of a failure that happened before. Every rank therefore keeps its last words in a page of memory
// that the others have mapped, where they outlive it. The page is an anonymous file (memfd) without
// a name in any file system, so nothing is left behind.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "trireme/base/file_descriptor.h"
#include "trireme/comm/failure.h"

namespace trireme {

struct Member;
struct LastWordsPage;

// A mapping of a page of last words. Its memory goes with its last mapping.
struct UnmapLastWords {
  void operator()(LastWordsPage* page) const;
};
using LastWordsMapping = std::unique_ptr<LastWordsPage, UnmapLastWords>;

// This rank's own. One thread at a time; others may read at any time.
class LastWords {
 public:
  // Throws CommError when memory or file descriptors are used up.
  LastWords();

  // How others of this host find the page, and know that it is the right one.
  std::string path() const;
  std::uint64_t token() const;

  // A message that is longer than the page is cut short. Only the first failure counts.
  void failed(const Failure& failure);
  void left();

 private:
  FileDescriptor fd_;
  LastWordsMapping page_;
};

class PeerProcess {
 public:
  // Null when the process is no more, or, with why, where the system does not allow it. Member's
  // process space must be this process's.
  static std::unique_ptr<PeerProcess> watch(const Member& member, std::string& why);

  int rank() const { return rank_; }
  // Readable, in the sense of poll(), once the process has ended. Then the words below are final.
  int fd() const { return process_.get(); }
  bool ended() const;
  bool has_left() const;
  std::optional<Failure> failure() const;

 private:
  PeerProcess(int rank, FileDescriptor process, LastWordsMapping page);

  const int rank_;
  const FileDescriptor process_;
  const LastWordsMapping page_;
};

}  // namespace trireme
