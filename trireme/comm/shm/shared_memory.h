// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Memory that one rank makes and others of its host map.
//
// It is an anonymous file (memfd) without a name in any file system, so a killed job leaves nothing
// behind. Pages are reserved before they are used, so that a full machine is an error there and not
// a SIGBUS later. Others open it through /proc/<pid>/fd, while the maker keeps its descriptor. The
// first page says what it is: proof that the right memory was opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "trireme/base/deadline.h"
#include "trireme/base/file_descriptor.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// Where a rank of the group says that its memory is, under a key of the control plane. Blocks until
// it has said so; name is the operation that needs the memory. Errors: see Engine::run().
std::string find_memory(const GroupScope& scope, const std::string& key, int owner,
                        const OperationName& name, const Deadline& deadline);

class SharedMemory {
 public:
  // Equal for maker and opener, different for any other memory.
  struct Identity {
    std::uint64_t group = 0;
    std::int64_t purpose = 0;
    bool operator==(const Identity&) const = default;
  };

  SharedMemory() = default;
  // Zeros, of which nothing is reserved. Throws CommError when memory or descriptors are used up.
  static SharedMemory make(const GroupScope& scope, const Identity& identity, std::size_t bytes);
  // owner is the rank of the group that made it. Throws CommError.
  static SharedMemory open(const GroupScope& scope, const Identity& identity, std::size_t bytes,
                           const std::string& where, int owner);

  // For open(), while this descriptor is open.
  std::string where() const;
  int descriptor() const { return fd_.get(); }
  void close_descriptor() { fd_ = FileDescriptor(); }
  // The descriptor must be open. Throws CommError when the machine's memory is used up.
  void reserve(const GroupScope& scope, std::size_t offset, std::size_t bytes);
  // The opposite: the machine has the pages again, whoever else still maps them. The descriptor
  // must be open; whole pages only.
  void give_back(std::size_t offset, std::size_t bytes);
  // Enters all reserved pages into this process's page table, which costs less than a fault for
  // each. Does nothing where the kernel cannot (before Linux 5.14).
  void populate() const;

  std::byte* data() const { return map_.get() + kProofBytes; }
  explicit operator bool() const { return map_ != nullptr; }

 private:
  static constexpr std::size_t kProofBytes = 4096;  // a page, so that data is aligned
  struct Unmap {
    std::size_t bytes = 0;
    void operator()(std::byte* map) const;
  };
  void map(const GroupScope& scope, std::size_t bytes);

  FileDescriptor fd_;
  std::unique_ptr<std::byte, Unmap> map_{nullptr, Unmap{}};
};

}  // namespace trireme
