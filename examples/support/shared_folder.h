// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A folder in which rank 0 prepares what all ranks read, gone when rank 0 is done.
//
//   const SharedFolder folder(*world);
//   if (world->rank() == 0) prepare_tokens({.text = text, .output = folder.path() + "/tokens"},
//   {}); world->barrier(); const TokenShards train(folder.path() + "/tokens", "train");
#pragma once

#include <string>

namespace trireme {
class Group;
}

namespace trireme::examples {

class SharedFolder {
 public:
  // A new, empty folder in TMPDIR, or /tmp; where ranks are on several hosts, one that all of them
  // see. Collective, blocking. Throws DataError, on rank 0 alone, where it cannot be made.
  explicit SharedFolder(Group& group);
  // On rank 0: removes the folder and all in it. Other ranks have opened by then what they need.
  ~SharedFolder();
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool is_owner_;
};

}  // namespace trireme::examples
