// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Encoding at speed: a tokenizer with the memory of one thread.
//
//   Encoder encoder(tokenizer);                 // one per thread; keep it while there is text
//   for (const auto& document : documents) encoder.encode(document, ids);
//
// Tokenizer::encode() does the same with encoders that it keeps; this class saves its lock.
//
// Method. Text repeats its words, so almost every word is one look-up. Words of up to 15 bytes are
// keys of two machine words in an open-addressing table whose slots hold up to three tokens: one
// half of a cache line per word. Longer words, up to 256 bytes, go by their hash to a second table.
// What is not found is merged (merge_table.h) and stored. The tables are bounded; a full one starts
// again empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "trireme/data/tokenizer.h"

namespace trireme {

// Not safe for concurrent use. The tokenizer must outlive it (moving the tokenizer is fine).
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Appends the tokens of text; the same as Tokenizer::encode().
  void encode(std::string_view text, std::vector<TokenId>& ids);

 private:
  friend class Tokenizer;
  struct Impl;
  explicit Encoder(const Tokenizer::Impl& tokenizer);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme
