// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Token shards: encoded text on disk, memory-mapped, with a header that says what it is.
//
//   <folder>/train-00000.tokens, train-00001.tokens, ..., validation-00000.tokens, manifest.json
//
// Layout of a shard: docs/formats.md. Little endian: magic "TRITOKEN", version, dtype (u16 when the
// vocabulary fits, else u32), vocabulary size, the tokenizer's hash, token count, xxh3-64 of the
// tokens; then the tokens. Written under a temporary name and renamed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trireme/data/tokenizer.h"

namespace trireme {

// Writes the shards of one split, in order, a new file each shard_tokens tokens.
class TokenShardWriter {
 public:
  TokenShardWriter(std::string folder, std::string split, std::int64_t vocab_size,
                   std::string tokenizer_hash, std::int64_t shard_tokens = std::int64_t{1} << 28);
  ~TokenShardWriter();
  void append(std::span<const TokenId> ids);
  // Flushes, fsyncs, renames. Returns the number of tokens in all shards. Throws DataError with the
  // system's reason.
  std::int64_t finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// All shards of one split as one sequence of tokens. Constant after construction; any thread may
// read.
class TokenShards {
 public:
  // Throws DataError: no shards, damaged or truncated header, a count that the file's size
  // contradicts, shards of different tokenizers.
  TokenShards(const std::string& folder, const std::string& split);
  ~TokenShards();
  TokenShards(TokenShards&&) noexcept;
  TokenShards& operator=(TokenShards&&) noexcept;

  std::int64_t num_tokens() const;
  std::int64_t vocab_size() const;
  const std::string& tokenizer_hash() const;
  // Copies tokens [begin, begin + out.size()) to out as 64-bit integers (what LibTorch's embedding
  // wants), across shard borders.
  void read(std::int64_t begin, std::span<std::int64_t> out) const;
  // Compares the tokens with the digests in the headers and checks that every id is below
  // vocab_size. Reads everything. Throws DataError.
  void verify() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Entropy, in nats per token, of the distribution of single tokens: what a model that knows only
// their frequencies would reach.
double unigram_entropy(const TokenShards& shards);

}  // namespace trireme
