// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The names in a folder of checkpoints, and what they mean after a crash; not for users.
//
//   step-00000400        a committed checkpoint
//   step-00000400.tmp    being written; worthless without its writer
//   step-00000400.old    whole; was renamed aside to make room for a new checkpoint of its step.
//   With
//                        step-00000400 beside it, it has been replaced; alone, it is the checkpoint
//   step-00000400.gone   being removed; may be half there
//
// A name changes only by rename, and the folder is fsynced between a rename and anything that
// relies on it. Hence .old is always whole and .gone never needed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "trireme/checkpoint/file_io.h"

namespace trireme::checkpoint_detail {

inline constexpr std::string_view kTemporarySuffix = ".tmp";
inline constexpr std::string_view kAsideSuffix = ".old";
inline constexpr std::string_view kRemovedSuffix = ".gone";

// <folder>/step-<step, at least 8 digits><suffix>
std::string step_path(const std::string& folder, std::int64_t step, std::string_view suffix = "");

// Held by whoever changes a folder of checkpoints. The kernel frees it when the process ends.
class FolderLock {
 public:
  // Throws CheckpointError when someone else holds it.
  explicit FolderLock(const std::string& folder);

 private:
  FileDescriptor folder_;
};

// Brings a folder to the state in which every name is a committed checkpoint: removes temporaries,
// finishes removals, puts back or removes what was renamed aside. The caller holds the lock.
void recover_folder(const std::string& folder);

// Takes a checkpoint, or one renamed aside, out of the folder so that no half of it is ever seen.
void remove_step(const std::string& folder, std::int64_t step, std::string_view suffix);

}  // namespace trireme::checkpoint_detail
