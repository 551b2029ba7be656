// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One piece of an arena, as its maker and as a server of the same host hold it.
//
// Like shm/shared_memory.h it is an anonymous file (memfd) that others open through
// /proc/<pid>/fd, and its first page says what it is. Unlike there, who opens it does not believe
// who made it: the file is sealed, so that it cannot become shorter under a server that writes to
// it, and a random token in the first page proves that the right memory was opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "trireme/base/file_descriptor.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme {

// How a server finds the memory.
struct MemoryNotice {
  std::uint64_t number = 0;  // the arena's, from 1 on
  std::uint64_t process = 0;
  std::uint32_t descriptor = 0;
  std::uint64_t bytes = 0;
  std::string token;
};

constexpr std::size_t kMemoryTokenBytes = 32;

void encode_notice(FieldWriter& writer, const MemoryNotice& notice);
// Throws ProtocolError.
MemoryNotice decode_notice(FieldReader& reader);

class ArenaMemory {
 public:
  // Zeros, reserved. Throws CommError when memory or descriptors are used up.
  static ArenaMemory make(std::uint64_t number, std::size_t bytes);
  // Maps what another process made. Throws CommError when it cannot be opened, or is not what the
  // notice says.
  static ArenaMemory open(const MemoryNotice& notice);

  std::byte* data() const;
  std::size_t bytes() const { return bytes_; }
  // Of the maker.
  MemoryNotice notice() const;
  // The maker's last act: the machine has the pages again, whoever still maps them.
  void free();
  // Its maker needs it no longer.
  bool freed() const;

 private:
  struct Unmap {
    std::size_t bytes = 0;
    void operator()(std::byte* map) const;
  };
  void map();

  FileDescriptor fd_;  // the maker's only
  std::uint64_t number_ = 0;
  std::size_t bytes_ = 0;
  std::string token_;
  std::unique_ptr<std::byte, Unmap> map_{nullptr, Unmap{}};
};

}  // namespace trireme
