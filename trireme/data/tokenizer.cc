// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/tokenizer.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "trireme/base/error.h"
#include "trireme/data/encoder.h"
#include "trireme/data/tokenizer_impl.h"

namespace trireme {
namespace {

constexpr std::size_t kIdleEncoders = 64;  // kept for later calls; more threads than that make anew

std::array<TokenId, 256> find_byte_tokens(const TokenizerParts& parts, const std::string& name) {
  std::array<TokenId, 256> byte_tokens{};
  std::array<bool, 256> found{};
  for (std::size_t id = 0; id < parts.tokens.size(); ++id) {
    if (parts.tokens[id].size() == 1 &&
        !std::binary_search(parts.special.begin(), parts.special.end(), id)) {
      const auto byte = static_cast<unsigned char>(parts.tokens[id][0]);
      byte_tokens[byte] = static_cast<TokenId>(id);
      found[byte] = true;
    }
  }
  const auto missing = std::find(found.begin(), found.end(), false);
  if (missing != found.end()) {
    throw_error<DataError>(
        "{}: no token stands for byte 0x{:02x}; a byte-level tokenizer has one for each of the 256",
        name, missing - found.begin());
  }
  return byte_tokens;
}

std::string hash_of(const TokenizerParts& parts) {
  XXH3_state_t* const state = XXH3_createState();
  XXH3_64bits_reset(state);
  const auto add_number = [state](std::uint64_t number) {
    XXH3_64bits_update(state, &number, sizeof(number));
  };
  const auto add_ids = [&](std::initializer_list<std::uint64_t> ids) {
    std::for_each(ids.begin(), ids.end(), add_number);
  };
  add_number(parts.tokens.size());
  for (const std::string& token : parts.tokens) {
    add_number(token.size());
    XXH3_64bits_update(state, token.data(), token.size());
  }
  add_number(parts.special.size());
  std::for_each(parts.special.begin(), parts.special.end(), add_number);
  add_number(parts.end_of_text);
  for (const Merge& merge : parts.merges) {
    add_ids({merge.left, merge.right, merge.merged});
  }
  const std::uint64_t hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return fmt::format("{:016x}", hash);
}

}  // namespace

Tokenizer::Impl::Impl(TokenizerParts given, const std::string& name)
    : parts(std::move(given)),
      byte_tokens(find_byte_tokens(parts, name)),
      merges(parts.merges),
      hash(hash_of(parts)) {}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::int64_t Tokenizer::vocab_size() const {
  return static_cast<std::int64_t>(impl_->parts.tokens.size());
}

TokenId Tokenizer::end_of_text() const { return impl_->parts.end_of_text; }

const std::string& Tokenizer::hash() const { return impl_->hash; }

void Tokenizer::encode(std::string_view text, std::vector<TokenId>& ids) const {
  std::unique_ptr<Encoder> encoder;
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->idle_encoders.empty()) {
      encoder = std::move(impl_->idle_encoders.back());
      impl_->idle_encoders.pop_back();
    }
  }
  if (encoder == nullptr) {
    encoder = std::unique_ptr<Encoder>(new Encoder(*impl_));
  }
  encoder->encode(text, ids);
  const std::lock_guard lock(impl_->mutex);
  if (impl_->idle_encoders.size() < kIdleEncoders) {
    impl_->idle_encoders.push_back(std::move(encoder));
  }
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::size_t size = 0;
  for (const TokenId id : ids) {
    size += token_bytes(id).size();
  }
  std::string bytes;
  bytes.reserve(size);
  for (const TokenId id : ids) {
    bytes += impl_->parts.tokens[id];
  }
  return bytes;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const std::vector<std::string>& tokens = impl_->parts.tokens;
  if (id >= tokens.size()) {
    throw_error<DataError>("token {} is outside the vocabulary of {} tokens", id, tokens.size());
  }
  return tokens[id];
}

}  // namespace trireme
