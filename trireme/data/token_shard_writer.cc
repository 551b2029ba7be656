// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/data/file_io.h"
#include "trireme/data/shard_format.h"
#include "trireme/data/token_shards.h"

namespace trireme {
namespace detail {

std::uint64_t header_digest(const ShardHeader& header) {
  return XXH3_64bits(&header, offsetof(ShardHeader, header_xxh3));
}

std::string shard_path(const std::string& folder, const std::string& split, std::int64_t shard) {
  return fmt::format("{}/{}-{:05}.tokens", folder, split, shard);
}

}  // namespace detail

namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

struct XxhState {
  XxhState() : state(XXH3_createState()) { XXH3_64bits_reset(state); }
  ~XxhState() { XXH3_freeState(state); }
  XxhState(const XxhState&) = delete;
  XxhState& operator=(const XxhState&) = delete;
  XXH3_state_t* const state;
};

struct FinishedShard {
  FileDescriptor file;
  std::string path;  // final; the file is still at path + ".tmp"
  std::uint64_t num_tokens = 0;
  std::uint64_t digest = 0;
};

}  // namespace

struct TokenShardWriter::Impl {
  std::string folder;
  std::string split;
  std::int64_t vocab_size;
  std::string tokenizer_hash;
  std::uint64_t shard_tokens;

  std::uint32_t token_bytes;
  std::vector<FinishedShard> shards;  // the last one is being written, unless finished
  std::unique_ptr<XxhState> digest;
  std::string buffer;
  std::int64_t total = 0;
  bool finished = false;

  std::string temporary(const FinishedShard& shard) const { return shard.path + ".tmp"; }

  void open_shard() {
    FinishedShard shard;
    shard.path = detail::shard_path(folder, split, static_cast<std::int64_t>(shards.size()));
    if (::access(shard.path.c_str(), F_OK) == 0) {
      throw_error<DataError>("{} exists already; token shards are never overwritten", shard.path);
    }
    shard.file = FileDescriptor(
        ::open(temporary(shard).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!shard.file) {
      throw_error<DataError>("cannot create {}: {}", temporary(shard),
                             detail::system_reason(errno));
    }
    shards.push_back(std::move(shard));
    digest = std::make_unique<XxhState>();
    const detail::ShardHeader unknown{};
    detail::write_bytes(shards.back().file.get(),
                        {reinterpret_cast<const char*>(&unknown), sizeof(unknown)},
                        temporary(shards.back()));
  }

  void flush() {
    XXH3_64bits_update(digest->state, buffer.data(), buffer.size());
    detail::write_bytes(shards.back().file.get(), buffer, temporary(shards.back()));
    buffer.clear();
  }

  void close_shard() {
    flush();
    shards.back().digest = XXH3_64bits_digest(digest->state);
  }

  template <class Stored>
  void put(std::span<const TokenId> ids) {
    const std::size_t begin = buffer.size();
    buffer.resize(begin + ids.size() * sizeof(Stored));
    char* out = buffer.data() + begin;
    for (const TokenId id : ids) {
      const auto stored = static_cast<Stored>(id);
      std::memcpy(out, &stored, sizeof(Stored));
      out += sizeof(Stored);
    }
  }

  // Tokens of one shard, at most one buffer of them.
  void append_piece(std::span<const TokenId> ids) {
    token_bytes == 2 ? put<std::uint16_t>(ids) : put<std::uint32_t>(ids);
    shards.back().num_tokens += ids.size();
    total += static_cast<std::int64_t>(ids.size());
    if (buffer.size() >= kBufferBytes) {
      flush();
    }
  }

  void write_header(const FinishedShard& shard, std::size_t index) const {
    detail::ShardHeader header{};
    std::memcpy(header.magic, detail::kShardMagic, sizeof(header.magic));
    header.version = detail::kShardVersion;
    header.token_bytes = token_bytes;
    header.vocab_size = static_cast<std::uint64_t>(vocab_size);
    header.num_tokens = shard.num_tokens;
    header.tokens_xxh3 = shard.digest;
    std::memcpy(header.tokenizer_hash, tokenizer_hash.data(), sizeof(header.tokenizer_hash));
    header.shard = static_cast<std::uint32_t>(index);
    header.num_shards = static_cast<std::uint32_t>(shards.size());
    header.split_tokens = static_cast<std::uint64_t>(total);
    std::memcpy(header.split, split.data(), split.size());
    header.header_xxh3 = detail::header_digest(header);
    if (::pwrite(shard.file.get(), &header, sizeof(header), 0) != sizeof(header)) {
      throw_error<DataError>("cannot write the header of {}: {}", temporary(shard),
                             detail::system_reason(errno));
    }
  }
};

TokenShardWriter::TokenShardWriter(std::string folder, std::string split, std::int64_t vocab_size,
                                   std::string tokenizer_hash, std::int64_t shard_tokens) {
  TRIREME_CHECK_EQ(tokenizer_hash.size(), sizeof(detail::ShardHeader::tokenizer_hash),
                   "digits of a tokenizer's hash");
  TRIREME_CHECK_LT(split.size(), sizeof(detail::ShardHeader::split), "letters of a split's name");
  TRIREME_ASSERT(shard_tokens >= 1 && vocab_size >= 1, "{} tokens a shard, vocabulary of {}",
                 shard_tokens, vocab_size);
  impl_ = std::unique_ptr<Impl>(new Impl{.folder = std::move(folder),
                                         .split = std::move(split),
                                         .vocab_size = vocab_size,
                                         .tokenizer_hash = std::move(tokenizer_hash),
                                         .shard_tokens = static_cast<std::uint64_t>(shard_tokens),
                                         .token_bytes = detail::token_bytes_for(vocab_size),
                                         .shards = {},
                                         .digest = nullptr,
                                         .buffer = {}});
  impl_->open_shard();
}

TokenShardWriter::~TokenShardWriter() {
  if (!impl_->finished) {
    for (const FinishedShard& shard : impl_->shards) {
      ::unlink(impl_->temporary(shard).c_str());
    }
  }
}

void TokenShardWriter::append(std::span<const TokenId> ids) {
  TRIREME_ASSERT(!impl_->finished, "append() comes before finish()");
  if (!ids.empty()) {
    TRIREME_CHECK_LT(std::int64_t{*std::max_element(ids.begin(), ids.end())}, impl_->vocab_size,
                     "token id");
  }
  while (!ids.empty()) {
    if (impl_->shards.back().num_tokens == impl_->shard_tokens) {
      impl_->close_shard();
      impl_->open_shard();
    }
    const std::uint64_t room = impl_->shard_tokens - impl_->shards.back().num_tokens;
    const std::size_t count =
        std::min<std::uint64_t>({ids.size(), room, kBufferBytes / sizeof(TokenId)});
    impl_->append_piece(ids.first(count));
    ids = ids.subspan(count);
  }
}

std::int64_t TokenShardWriter::finish() {
  TRIREME_ASSERT(!impl_->finished, "finish() comes once");
  impl_->close_shard();
  for (std::size_t i = 0; i < impl_->shards.size(); ++i) {
    impl_->write_header(impl_->shards[i], i);
    detail::sync_data_file(impl_->shards[i].file.get(), impl_->shards[i].path);
  }
  for (const FinishedShard& shard : impl_->shards) {
    if (::rename(impl_->temporary(shard).c_str(), shard.path.c_str()) != 0) {
      throw_error<DataError>("cannot rename {} to {}: {}", impl_->temporary(shard), shard.path,
                             detail::system_reason(errno));
    }
  }
  detail::sync_data_folder(impl_->folder);
  impl_->finished = true;
  return impl_->total;
}

}  // namespace trireme
