// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A queue of records in shared memory, from one rank to one other: what a message is cut into.
//
// The ring is counted in cache lines. A record is a header and its bytes, side by side; where the
// rest of the ring is too short for it, a filler record takes the rest. The writer raises written
// when a record stands, the reader raises read when it is done with one. Each sleeps on the
// other's word.
#pragma once

#include <cstddef>
#include <cstdint>

#include "trireme/base/dtype.h"
#include "trireme/comm/shm/shared_word.h"

namespace trireme {

// A part of a message. Chunks of one message come in order; those of several may alternate.
struct ShmChunk {
  std::uint64_t sequence = 0;
  std::int64_t count = 0;    // elements of the whole message
  std::uint64_t offset = 0;  // bytes of the message before this chunk
  std::int32_t tag = 0;
  std::uint32_t bytes = 0;  // of this chunk
  DType dtype = DType::kF32;
  bool filler = false;
};

class ShmRing {
 public:
  static constexpr std::size_t kBytes = std::size_t{256} << 10;
  // Enough of them in a ring that writer and reader are busy at the same time.
  static constexpr std::size_t kMostChunkBytes = std::size_t{32} << 10;

  // In shared memory, zeros at first. Each word on a line of its own.
  struct Words {
    alignas(64) SharedWord written;  // lines
    alignas(64) SharedWord read;     // lines
  };

  ShmRing() = default;
  ShmRing(Words* words, std::byte* lines) : words_(words), lines_(lines) {}

  SharedWord& written() const { return words_->written; }
  SharedWord& read() const { return words_->read; }

  // The writer, one thread at a time. False when there is no room.
  bool write(const ShmChunk& chunk, const void* bytes);

  // The reader, one thread at a time. False when there is nothing. bytes is valid until pop().
  bool front(ShmChunk& chunk, const std::byte*& bytes);
  void pop();

 private:
  Words* words_ = nullptr;
  std::byte* lines_ = nullptr;
};

}  // namespace trireme
