// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The 128 bytes at the front of a token shard; docs/formats.md describes them. Internal to
// trireme/data.
#pragma once

#include <bit>
#include <cstdint>
#include <string>

namespace trireme::detail {

inline constexpr char kShardMagic[8] = {'T', 'R', 'I', 'T', 'O', 'K', 'E', 'N'};
inline constexpr std::uint32_t kShardVersion = 1;

static_assert(std::endian::native == std::endian::little, "shards are little endian and mapped");

struct ShardHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t token_bytes;  // 2 or 4
  std::uint64_t vocab_size;
  std::uint64_t num_tokens;    // in this shard
  std::uint64_t tokens_xxh3;   // xxh3-64 of the bytes after the header
  char tokenizer_hash[16];     // hexadecimal digits
  std::uint32_t shard;         // counted from 0
  std::uint32_t num_shards;    // of the split
  std::uint64_t split_tokens;  // in all shards of the split
  char split[32];              // name, zeros after it
  char reserved[16];           // zeros
  std::uint64_t header_xxh3;   // xxh3-64 of the bytes before it
};
static_assert(sizeof(ShardHeader) == 128);

// xxh3-64 of all but the last field.
std::uint64_t header_digest(const ShardHeader& header);

// <folder>/<split>-<shard, 5 digits>.tokens
std::string shard_path(const std::string& folder, const std::string& split, std::int64_t shard);

// u16 when every id fits.
inline std::uint32_t token_bytes_for(std::int64_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

}  // namespace trireme::detail
