// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a Tokenizer holds. Internal to trireme/data.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/data/encoder.h"
#include "trireme/data/merge_table.h"
#include "trireme/data/tokenizer.h"

namespace trireme {

// The token that ends each document, in tokenizer.json.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

// The parts that a tokenizer is made from.
struct TokenizerParts {
  std::vector<std::string> tokens;  // bytes by id; end of text and other special tokens included
  std::vector<TokenId> special;     // ids that no text encodes to, ascending; with end_of_text
  TokenId end_of_text = 0;
  std::vector<Merge> merges;  // in order of rank
};

struct Tokenizer::Impl {
  // name stands for the tokenizer in messages. Throws DataError when a byte has no token.
  Impl(TokenizerParts given, const std::string& name);

  const TokenizerParts parts;
  const std::array<TokenId, 256> byte_tokens;
  const MergeTable merges;
  const std::string hash;

  // Encoders that are not in use, for Tokenizer::encode(). Guarded by mutex.
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Encoder>> idle_encoders;
};

}  // namespace trireme
