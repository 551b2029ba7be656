// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/token_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kHash = "0123456789abcdef";

std::vector<TokenId> numbered_ids(std::int64_t count, std::int64_t vocab_size) {
  std::vector<TokenId> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<TokenId>((i * 7919 + i / 3) % vocab_size));
  }
  return ids;
}

// Writes in pieces of uneven size.
void write(const fs::path& folder, const std::vector<TokenId>& ids, std::int64_t vocab_size,
           std::int64_t shard_tokens, const std::string& hash = kHash,
           const std::string& split = "train") {
  TokenShardWriter writer(folder.string(), split, vocab_size, hash, shard_tokens);
  std::size_t piece = 1;
  for (std::size_t at = 0; at < ids.size(); at += piece, piece = piece * 2 + 1) {
    writer.append(std::span(ids).subspan(at, std::min(piece, ids.size() - at)));
  }
  EXPECT_EQ(writer.finish(), static_cast<std::int64_t>(ids.size()));
}

std::vector<std::int64_t> read_all(const TokenShards& shards) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(shards.num_tokens()));
  shards.read(0, ids);
  return ids;
}

// What opening or verifying the folder says.
std::string complaint(const fs::path& folder, const std::string& split = "train") {
  try {
    TokenShards(folder.string(), split).verify();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no complaint";
}

TEST(TokenShards, HoldWhatWasWritten) {
  for (const std::int64_t vocab_size : {300, 65536, 65537}) {
    for (const std::int64_t shard_tokens : {5, 62, 63, 1 << 20}) {
      const TemporaryFolder folder;
      const std::vector<TokenId> ids = numbered_ids(63, vocab_size);
      write(folder.path(), ids, vocab_size, shard_tokens);
      const TokenShards shards(folder.path().string(), "train");
      shards.verify();
      EXPECT_EQ(shards.num_tokens(), 63);
      EXPECT_EQ(shards.vocab_size(), vocab_size);
      EXPECT_EQ(shards.tokenizer_hash(), kHash);
      EXPECT_EQ(read_all(shards), std::vector<std::int64_t>(ids.begin(), ids.end()));
      std::vector<std::int64_t> part(11);
      shards.read(5, part);
      EXPECT_EQ(part, std::vector<std::int64_t>(ids.begin() + 5, ids.begin() + 16));
      EXPECT_EQ(fs::file_size(folder / "train-00000.tokens"),
                128U + static_cast<std::uint64_t>(std::min<std::int64_t>(shard_tokens, 63)) *
                           (vocab_size == 65537 ? 4 : 2));
    }
  }
}

TEST(TokenShards, MoreThanOneBuffer) {
  const TemporaryFolder folder;
  const std::vector<TokenId> ids = numbered_ids(1500001, 50257);
  write(folder.path(), ids, 50257, 1000000);
  const TokenShards shards(folder.path().string(), "train");
  shards.verify();
  EXPECT_EQ(read_all(shards), std::vector<std::int64_t>(ids.begin(), ids.end()));
}

TEST(TokenShards, NoTokensAreASplitToo) {
  const TemporaryFolder folder;
  write(folder.path(), {}, 300, 10);
  const TokenShards shards(folder.path().string(), "train");
  shards.verify();
  EXPECT_EQ(shards.num_tokens(), 0);
  EXPECT_EQ(unigram_entropy(shards), 0.0);
}

TEST(TokenShards, ReadingOutsideIsABug) {
  const TemporaryFolder folder;
  write(folder.path(), numbered_ids(10, 300), 300, 4);
  const TokenShards shards(folder.path().string(), "train");
  std::vector<std::int64_t> part(4);
  EXPECT_NO_THROW(shards.read(6, part));
  EXPECT_THROW(shards.read(7, part), InternalError);
  EXPECT_THROW(shards.read(-1, part), InternalError);
}

TEST(TokenShards, NothingIsThereBeforeFinish) {
  const TemporaryFolder folder;
  {
    TokenShardWriter writer(folder.path().string(), "train", 300, kHash, 4);
    writer.append(numbered_ids(9, 300));
    EXPECT_FALSE(fs::exists(folder / "train-00000.tokens"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  EXPECT_THAT(complaint(folder.path()), HasSubstr("no token shards of split 'train'"));
}

TEST(TokenShards, AreNeverOverwritten) {
  const TemporaryFolder folder;
  write(folder.path(), numbered_ids(10, 300), 300, 4);
  EXPECT_THROW(write(folder.path(), numbered_ids(3, 300), 300, 4), DataError);
  EXPECT_EQ(TokenShards(folder.path().string(), "train").num_tokens(), 10);
}

TEST(TokenShards, SystemErrorsCarryTheirReason) {
  try {
    TokenShardWriter writer("/nonexistent/folder", "train", 300, kHash);
    FAIL() << "there is no such folder";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("No such file or directory"));
  }
}

TEST(TokenShards, IdsOutsideTheVocabularyAreABug) {
  const TemporaryFolder folder;
  TokenShardWriter writer(folder.path().string(), "train", 300, kHash);
  EXPECT_THROW(writer.append(std::vector<TokenId>{1, 300}), InternalError);
}

struct Damage {
  const char* name;
  std::size_t at;       // byte to change; beyond the file: cut or append instead
  std::ptrdiff_t grow;  // bytes to append, or to cut when negative
  const char* message;
};

class DamagedShard : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedShard, IsRefused) {
  const Damage& damage = GetParam();
  const TemporaryFolder folder;
  write(folder.path(), numbered_ids(10, 300), 300, 4);
  ASSERT_EQ(complaint(folder.path()), "no complaint");
  const fs::path path = folder / "train-00001.tokens";
  std::string bytes = read_text(path);
  if (damage.grow != 0) {
    bytes.resize(static_cast<std::size_t>(static_cast<std::ptrdiff_t>(bytes.size()) + damage.grow));
  } else {
    bytes[damage.at] = static_cast<char>(bytes[damage.at] ^ 0x10);
  }
  write_text(path, bytes);
  EXPECT_THAT(complaint(folder.path()), HasSubstr(damage.message));
  EXPECT_THAT(complaint(folder.path()), HasSubstr("train-00001.tokens"));
}

INSTANTIATE_TEST_SUITE_P(
    TokenShards, DamagedShard,
    ::testing::Values(
        Damage{"Magic", 0, 0, "is not a token shard"}, Damage{"Version", 8, 0, "has version 17"},
        Damage{"TokenBytes", 12, 0, "damaged header"},
        Damage{"Vocabulary", 16, 0, "damaged header"}, Damage{"Count", 24, 0, "damaged header"},
        Damage{"Reserved", 110, 0, "damaged header"},
        Damage{"HeaderDigest", 127, 0, "damaged header"},
        Damage{"Token", 130, 0, "is damaged: its tokens have the digest"},
        Damage{"CutInTheTokens", 0, -2, "is truncated"},
        Damage{"CutInsideAToken", 0, -1, "is truncated"},
        Damage{"CutInTheHeader", 0, -20, "is truncated"}, Damage{"Longer", 0, 2, "is too long"}),
    [](const ::testing::TestParamInfo<Damage>& damage) { return damage.param.name; });

TEST(TokenShards, AMissingShardIsNoticed) {
  const TemporaryFolder folder;
  write(folder.path(), numbered_ids(10, 300), 300, 4);
  fs::remove(folder / "train-00002.tokens");
  EXPECT_THAT(complaint(folder.path()), HasSubstr("train-00002.tokens: No such file"));
}

TEST(TokenShards, ShardsThatDoNotBelongTogetherAreRefused) {
  const TemporaryFolder a;
  const TemporaryFolder b;
  write(a.path(), numbered_ids(10, 300), 300, 4);
  write(b.path(), numbered_ids(10, 300), 300, 4, "ffffffffffffffff");
  const auto copy = [&](const char* from, const char* to) {
    fs::copy_file(b / from, a / to, fs::copy_options::overwrite_existing);
  };
  copy("train-00001.tokens", "train-00001.tokens");
  EXPECT_THAT(complaint(a.path()), HasSubstr("made with tokenizer ffffffffffffffff"));
  copy("train-00002.tokens", "train-00001.tokens");
  EXPECT_THAT(complaint(a.path()), HasSubstr("is shard 2 of 3"));
  fs::copy_file(b / "train-00000.tokens", a / "validation-00000.tokens");
  EXPECT_THAT(complaint(a.path(), "validation"), HasSubstr("another split"));
}

TEST(TokenShards, UnigramEntropyIsThatOfTheFrequencies) {
  const TemporaryFolder folder;
  std::vector<TokenId> ids(50, 3);
  ids.insert(ids.end(), 25, 299);
  ids.insert(ids.end(), 25, 0);
  write(folder.path(), ids, 300, 30);
  const double expected = 0.5 * std::log(2.0) + 2 * 0.25 * std::log(4.0);
  EXPECT_NEAR(unigram_entropy(TokenShards(folder.path().string(), "train")), expected, 1e-12);
}

}  // namespace
}  // namespace trireme
