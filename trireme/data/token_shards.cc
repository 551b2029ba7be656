// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/token_shards.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/data/file_io.h"
#include "trireme/data/shard_format.h"

namespace trireme {
namespace {

using detail::ShardHeader;

// One shard, mapped.
class MappedShard {
 public:
  explicit MappedShard(const std::string& path) : path_(path) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!file || ::fstat(file.get(), &status) != 0) {
      throw_error<DataError>("cannot read token shard {}: {}", path, detail::system_reason(errno));
    }
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ < sizeof(ShardHeader)) {
      throw_error<DataError>("token shard {} is truncated: {} bytes, its header alone has {}", path,
                             size_, sizeof(ShardHeader));
    }
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
    if (address == MAP_FAILED) {
      throw_error<DataError>("cannot map token shard {}: {}", path, detail::system_reason(errno));
    }
    bytes_ = static_cast<const char*>(address);
    std::memcpy(&header_, bytes_, sizeof(header_));
    try {
      check_header();
    } catch (...) {
      ::munmap(address, size_);
      throw;
    }
  }
  MappedShard(MappedShard&& other) noexcept
      : path_(std::move(other.path_)),
        bytes_(std::exchange(other.bytes_, nullptr)),
        size_(other.size_),
        header_(other.header_) {}
  MappedShard& operator=(MappedShard&&) = delete;
  ~MappedShard() {
    if (bytes_ != nullptr) {
      ::munmap(const_cast<char*>(bytes_), size_);
    }
  }

  const std::string& path() const { return path_; }
  const ShardHeader& header() const { return header_; }
  std::string tokenizer_hash() const {
    return std::string(header_.tokenizer_hash, sizeof(header_.tokenizer_hash));
  }
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(header_.num_tokens); }

  // Calls use(pointer to the tokens) with their type.
  template <class Use>
  void with_tokens(const Use& use) const {
    const char* const tokens = bytes_ + sizeof(ShardHeader);
    header_.token_bytes == 2 ? use(reinterpret_cast<const std::uint16_t*>(tokens))
                             : use(reinterpret_cast<const std::uint32_t*>(tokens));
  }

  void verify() const {
    const std::uint64_t digest =
        XXH3_64bits(bytes_ + sizeof(ShardHeader), header_.num_tokens * header_.token_bytes);
    if (digest != header_.tokens_xxh3) {
      throw_error<DataError>(
          "token shard {} is damaged: its tokens have the digest {:016x}, its header says {:016x}; "
          "make the data again",
          path_, digest, header_.tokens_xxh3);
    }
    with_tokens([this](const auto* tokens) {
      const auto* const last = tokens + header_.num_tokens;
      const auto* const largest = std::max_element(tokens, last);
      if (largest != last && *largest >= header_.vocab_size) {
        throw_error<DataError>(
            "token shard {} holds the id {}, outside its vocabulary of {} tokens", path_, *largest,
            header_.vocab_size);
      }
    });
  }

 private:
  void check_header() const {
    if (std::memcmp(header_.magic, detail::kShardMagic, sizeof(header_.magic)) != 0) {
      throw_error<DataError>("{} is not a token shard: it does not start with TRITOKEN", path_);
    }
    if (header_.version != detail::kShardVersion) {
      throw_error<DataError>("token shard {} has version {}; this program reads version {}", path_,
                             header_.version, detail::kShardVersion);
    }
    if (header_.header_xxh3 != detail::header_digest(header_)) {
      throw_error<DataError>("token shard {} has a damaged header; make the data again", path_);
    }
    if (header_.vocab_size < 1 || header_.vocab_size > (std::uint64_t{1} << 32) ||
        header_.token_bytes !=
            detail::token_bytes_for(static_cast<std::int64_t>(header_.vocab_size))) {
      throw_error<DataError>("token shard {} stores {} bytes a token for a vocabulary of {}", path_,
                             header_.token_bytes, header_.vocab_size);
    }
    const std::size_t stored = size_ - sizeof(ShardHeader);
    if (stored % header_.token_bytes != 0 || stored / header_.token_bytes != header_.num_tokens) {
      throw_error<DataError>(
          "token shard {} is {}: {} bytes of tokens, but {} tokens of {} bytes are announced",
          path_, stored / header_.token_bytes < header_.num_tokens ? "truncated" : "too long",
          stored, header_.num_tokens, header_.token_bytes);
    }
  }

  std::string path_;
  const char* bytes_ = nullptr;
  std::size_t size_ = 0;
  ShardHeader header_{};
};

}  // namespace

struct TokenShards::Impl {
  std::vector<MappedShard> shards;
  std::vector<std::int64_t> begins;  // first token of each shard, and the end of the last
  std::string tokenizer_hash;

  void add(MappedShard shard, const std::string& split) {
    const ShardHeader& header = shard.header();
    const ShardHeader& first = shards.empty() ? header : shards.front().header();
    const std::string hash = shard.tokenizer_hash();
    if (std::string_view(header.split, ::strnlen(header.split, sizeof(header.split))) != split ||
        header.shard != shards.size() || header.num_shards != first.num_shards ||
        header.split_tokens != first.split_tokens) {
      throw_error<DataError>("{} is shard {} of {} of another split or run; make the data again",
                             shard.path(), header.shard, header.num_shards);
    }
    if (!shards.empty() && (hash != tokenizer_hash || header.vocab_size != first.vocab_size)) {
      throw_error<DataError>("{} was made with tokenizer {}, {} with tokenizer {}", shard.path(),
                             hash, shards.front().path(), tokenizer_hash);
    }
    tokenizer_hash = hash;
    begins.push_back(begins.back() + shard.num_tokens());
    shards.push_back(std::move(shard));
  }
};

TokenShards::TokenShards(const std::string& folder, const std::string& split)
    : impl_(std::make_unique<Impl>()) {
  impl_->begins.push_back(0);
  const std::string first = detail::shard_path(folder, split, 0);
  std::error_code error;
  if (!std::filesystem::exists(first, error)) {
    throw_error<DataError>("no token shards of split '{}' in {} ({} is missing)", split, folder,
                           first);
  }
  impl_->add(MappedShard(first), split);
  const ShardHeader& header = impl_->shards.front().header();
  const std::int64_t num_shards = header.num_shards;
  const auto split_tokens = static_cast<std::int64_t>(header.split_tokens);
  for (std::int64_t shard = 1; shard < num_shards; ++shard) {
    impl_->add(MappedShard(detail::shard_path(folder, split, shard)), split);
  }
  if (num_tokens() != split_tokens) {
    throw_error<DataError>("the shards of split '{}' in {} hold {} tokens, their headers say {}",
                           split, folder, num_tokens(), split_tokens);
  }
}

TokenShards::~TokenShards() = default;
TokenShards::TokenShards(TokenShards&&) noexcept = default;
TokenShards& TokenShards::operator=(TokenShards&&) noexcept = default;

std::int64_t TokenShards::num_tokens() const { return impl_->begins.back(); }

std::int64_t TokenShards::vocab_size() const {
  return static_cast<std::int64_t>(impl_->shards.front().header().vocab_size);
}

const std::string& TokenShards::tokenizer_hash() const { return impl_->tokenizer_hash; }

void TokenShards::read(std::int64_t begin, std::span<std::int64_t> out) const {
  const auto size = static_cast<std::int64_t>(out.size());
  TRIREME_ASSERT(begin >= 0 && begin <= num_tokens() && size <= num_tokens() - begin,
                 "tokens {} to {} of {}", begin, begin + size, num_tokens());
  const auto& begins = impl_->begins;
  auto shard = static_cast<std::size_t>(std::upper_bound(begins.begin(), begins.end(), begin) -
                                        begins.begin() - 1);
  while (!out.empty()) {
    const std::int64_t offset = begin - begins[shard];
    const auto count =
        std::min<std::size_t>(out.size(), static_cast<std::size_t>(begins[shard + 1] - begin));
    impl_->shards[shard].with_tokens(
        [&](const auto* tokens) { std::copy_n(tokens + offset, count, out.begin()); });
    out = out.subspan(count);
    begin += static_cast<std::int64_t>(count);
    ++shard;
  }
}

void TokenShards::verify() const {
  for (const MappedShard& shard : impl_->shards) {
    shard.verify();
  }
}

double unigram_entropy(const TokenShards& shards) {
  constexpr std::int64_t kBatch = std::int64_t{1} << 16;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(shards.vocab_size()), 0);
  std::vector<std::int64_t> batch(static_cast<std::size_t>(kBatch));
  for (std::int64_t begin = 0; begin < shards.num_tokens(); begin += kBatch) {
    const auto size = static_cast<std::size_t>(std::min(kBatch, shards.num_tokens() - begin));
    shards.read(begin, std::span(batch).first(size));
    for (std::size_t i = 0; i < size; ++i) {
      if (batch[i] >= shards.vocab_size()) {
        throw_error<DataError>("token {} has the id {}, outside the vocabulary of {} tokens",
                               begin + static_cast<std::int64_t>(i), batch[i], shards.vocab_size());
      }
      ++counts[static_cast<std::size_t>(batch[i])];
    }
  }
  double entropy = 0;
  const auto total = static_cast<double>(shards.num_tokens());
  for (const std::int64_t count : counts) {
    if (count > 0) {
      const double share = static_cast<double>(count) / total;
      entropy -= share * std::log(share);
    }
  }
  return entropy;
}

}  // namespace trireme
