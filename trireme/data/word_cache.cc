// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/word_cache.h"

#include <xxhash.h>

#include <utility>

namespace trireme {
namespace {

constexpr std::size_t kFirstSlots = 1024;
constexpr std::size_t kGrowth = 4;
constexpr std::size_t kMaxShortSlots = std::size_t{1} << 20;  // 32 MiB
constexpr std::size_t kMaxLongSlots = std::size_t{1} << 16;   // and at most 256 bytes for each half

}  // namespace

ShortWordCache::ShortWordCache() : front_(std::size_t{1} << kFrontBits) { resize(kFirstSlots); }

const ShortWordCache::Slot* ShortWordCache::find_behind(const ShortWord& word, std::uint64_t hash,
                                                        Slot& front) {
  for (std::size_t at = hash >> shift_; slots_[at].word.high != 0; at = (at + 1) & mask_) {
    if (slots_[at].word == word) {
      front = slots_[at];
      return &front;
    }
  }
  return nullptr;
}

void ShortWordCache::resize(std::size_t num_slots) {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(num_slots));
  mask_ = num_slots - 1;
  shift_ = 64 - std::countr_zero(num_slots);
  for (const Slot& slot : old) {
    if (slot.word.high != 0) {
      place(slot);
    }
  }
}

void ShortWordCache::place(const Slot& slot) {
  std::size_t at = slot.word.hash() >> shift_;
  while (slots_[at].word.high != 0) {
    at = (at + 1) & mask_;
  }
  slots_[at] = slot;
}

const ShortWordCache::Slot* ShortWordCache::insert(const ShortWord& word,
                                                   std::span<const TokenId> tokens) {
  if ((used_ + 1) * 2 > slots_.size()) {
    if (slots_.size() < kMaxShortSlots) {
      resize(slots_.size() * kGrowth);
    } else {
      slots_.assign(slots_.size(), Slot{});
      front_.assign(front_.size(), Slot{});  // its slots point into the arena
      arena_.clear();
      used_ = 0;
    }
  }
  Slot slot{word, {}, static_cast<std::uint32_t>(tokens.size())};
  if (tokens.size() <= kInlineTokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      slot.tokens[i] = tokens[i];
    }
  } else {
    slot.tokens[0] = static_cast<TokenId>(arena_.size());
    arena_.insert(arena_.end(), tokens.begin(), tokens.end());
  }
  place(slot);
  ++used_;
  Slot& front = front_[word.hash() >> (64 - kFrontBits)];
  front = slot;
  return &front;
}

LongWordCache::LongWordCache() : slots_(kFirstSlots) {}

std::span<const TokenId> LongWordCache::find(std::string_view word) const {
  const std::uint64_t hash = XXH3_64bits(word.data(), word.size());
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask; slots_[at].num_bytes != 0; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.hash == hash &&
        std::string_view(bytes_).substr(slot.bytes_at, slot.num_bytes) == word) {
      return std::span<const TokenId>(tokens_).subspan(slot.tokens_at, slot.num_tokens);
    }
  }
  return {};
}

void LongWordCache::resize(std::size_t num_slots) {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(num_slots));
  for (const Slot& slot : old) {
    if (slot.num_bytes != 0) {
      std::size_t at = slot.hash & (num_slots - 1);
      while (slots_[at].num_bytes != 0) {
        at = (at + 1) & (num_slots - 1);
      }
      slots_[at] = slot;
    }
  }
}

void LongWordCache::insert(std::string_view word, std::span<const TokenId> tokens) {
  if ((used_ + 1) * 2 > slots_.size()) {
    if (slots_.size() < kMaxLongSlots) {
      resize(slots_.size() * kGrowth);
    } else {
      slots_.assign(slots_.size(), Slot{});
      bytes_.clear();
      tokens_.clear();
      used_ = 0;
    }
  }
  const std::uint64_t hash = XXH3_64bits(word.data(), word.size());
  std::size_t at = hash & (slots_.size() - 1);
  while (slots_[at].num_bytes != 0) {
    at = (at + 1) & (slots_.size() - 1);
  }
  slots_[at] = {hash, static_cast<std::uint32_t>(bytes_.size()),
                static_cast<std::uint32_t>(word.size()), static_cast<std::uint32_t>(tokens_.size()),
                static_cast<std::uint32_t>(tokens.size())};
  bytes_ += word;
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  ++used_;
}

}  // namespace trireme
