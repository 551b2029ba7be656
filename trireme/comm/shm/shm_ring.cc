// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_ring.h"

#include <cstring>

#include "trireme/comm/shm/shm_copy.h"

namespace trireme {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::uint32_t kLines = ShmRing::kBytes / kLineBytes;
static_assert((kLines & (kLines - 1)) == 0, "positions wrap around with the counters");

// Few bytes share the header's line, so that a small message is one line; more begin at a line.
constexpr std::size_t kInlineBytes = kLineBytes - sizeof(ShmChunk);
std::size_t bytes_at(std::size_t bytes) {
  return bytes <= kInlineBytes ? sizeof(ShmChunk) : kLineBytes;
}
std::uint32_t lines_of(std::size_t bytes) {
  return static_cast<std::uint32_t>((bytes_at(bytes) + bytes + kLineBytes - 1) / kLineBytes);
}
std::uint32_t rest_from(std::uint32_t position) { return kLines - position % kLines; }

std::byte* line(std::byte* lines, std::uint32_t position) {
  return lines + std::size_t{position % kLines} * kLineBytes;
}

}  // namespace

bool ShmRing::write(const ShmChunk& chunk, const void* bytes) {
  std::uint32_t at = words_->written.value();
  const std::uint32_t wanted = lines_of(chunk.bytes);
  const std::uint32_t rest = rest_from(at);
  const std::uint32_t filler = rest < wanted ? rest : 0;
  const std::uint32_t free = kLines - (at - words_->read.value());
  if (free < filler + wanted) return false;
  if (filler > 0) {
    ShmChunk skip;
    skip.filler = true;
    std::memcpy(line(lines_, at), &skip, sizeof(skip));
    at += filler;
  }
  std::byte* record = line(lines_, at);
  std::memcpy(record, &chunk, sizeof(chunk));
  copy_bytes(record + bytes_at(chunk.bytes), bytes, chunk.bytes);
  words_->written.raise_to(at + wanted);
  return true;
}

bool ShmRing::front(ShmChunk& chunk, const std::byte*& bytes) {
  for (;;) {
    const std::uint32_t at = words_->read.value();
    if (at == words_->written.value()) return false;
    const std::byte* record = line(lines_, at);
    std::memcpy(&chunk, record, sizeof(chunk));
    if (!chunk.filler) {
      bytes = record + bytes_at(chunk.bytes);
      return true;
    }
    words_->read.raise_to(at + rest_from(at));
  }
}

void ShmRing::pop() {
  const std::uint32_t at = words_->read.value();
  ShmChunk chunk;
  std::memcpy(&chunk, line(lines_, at), sizeof(chunk));
  words_->read.raise_to(at + lines_of(chunk.bytes));
}

}  // namespace trireme
