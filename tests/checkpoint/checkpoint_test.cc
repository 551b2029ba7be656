// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "tests/checkpoint/fixture.h"
#include "tests/support/files.h"
#include "trireme/base/error.h"
#include "trireme/checkpoint/checkpoint_manifest.h"
#include "trireme/checkpoint/file_io.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::CheckpointTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::read_text;
using ::testing::ThrowsMessage;
using testing::write_text;

auto opening(const std::string& path) {
  return [path] { Checkpoint::open(path); };
}

auto refused(const std::string& part) { return ThrowsMessage<CheckpointError>(HasSubstr(part)); }

// A manifest of any body, with the digest that makes it pass for undamaged.
std::string sealed(const std::string& body) {
  const std::string begin = body + ",\n  \"xxh3\": \"";
  return begin + detail::digest_of(detail::as_bytes(body)) + "\"\n}\n";
}

TEST_F(CheckpointTest, RoundTrip) {
  const std::string path = save(400, 3);
  EXPECT_EQ(path, step_folder("step-00000400"));
  EXPECT_THAT(names(), ElementsAre("step-00000400"));
  EXPECT_EQ(variant_of(path), 3);

  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.step(), 400);
  EXPECT_EQ(checkpoint.path(), path);
  EXPECT_EQ(checkpoint.state_at("note"), "\xc3\xa4 \"\\\n");
  EXPECT_EQ(checkpoint.state().size(), 2u);
  ASSERT_EQ(checkpoint.files().size(), 2u);
  EXPECT_EQ(checkpoint.files()[0].name, "model.safetensors");
  EXPECT_EQ(checkpoint.files()[0].size_bytes, fs::file_size(path + "/model.safetensors"));
  EXPECT_EQ(checkpoint.files()[0].digest, checkpoint.tensors("model.safetensors").digest());
  EXPECT_THAT([&] { checkpoint.state_at("absent"); }, refused("'absent'"));
}

TEST_F(CheckpointTest, EmptyCheckpointAndEmptyFile) {
  CheckpointWriter empty(folder(), 0);
  const Checkpoint nothing = Checkpoint::open(empty.commit({}));
  EXPECT_TRUE(nothing.files().empty() && nothing.state().empty());
  CheckpointWriter writer(folder(), 1);
  writer.add_file("a", "");
  EXPECT_EQ(Checkpoint::open(writer.commit({})).file("a"), "");
}

TEST_F(CheckpointTest, OnlyListedFilesAreRead) {
  const std::string path = save(1, 1);
  write_text(path + "/stray.json", "{}");
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_THAT([&] { checkpoint.file("stray.json"); }, refused("'stray.json'"));
  EXPECT_THAT([&] { checkpoint.file("../step-00000001/tokenizer.json"); }, refused("no file"));
  EXPECT_THAT([&] { checkpoint.tensors("optimizer.safetensors"); }, refused("no file"));
}

TEST_F(CheckpointTest, EveryFlippedBitIsFound) {
  const std::string path = save(7, 1);
  int flips = 0;
  for (const char* name : {"checkpoint.json", "model.safetensors", "tokenizer.json"}) {
    const std::string file = path + "/" + name;
    const std::string whole = read_text(file);
    const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit, ++flips) {
        const char flipped = static_cast<char>(whole[i] ^ (1 << bit));
        ASSERT_EQ(::pwrite(fd, &flipped, 1, static_cast<off_t>(i)), 1);
        EXPECT_THROW(Checkpoint::open(path), CheckpointError)
            << name << " byte " << i << " bit " << bit;
      }
      ASSERT_EQ(::pwrite(fd, &whole[i], 1, static_cast<off_t>(i)), 1);
    }
    ::close(fd);
  }
  EXPECT_GT(flips, 5000);
  EXPECT_EQ(variant_of(path), 1);
}

TEST_F(CheckpointTest, EveryTruncationIsFound) {
  const std::string path = save(7, 1);
  for (const char* name : {"checkpoint.json", "model.safetensors", "tokenizer.json"}) {
    const std::string file = path + "/" + name;
    const std::string whole = read_text(file);
    for (std::size_t size = whole.size(); size-- > 0;) {
      fs::resize_file(file, size);
      EXPECT_THROW(Checkpoint::open(path), CheckpointError) << name << " at " << size;
    }
    write_text(file, whole + "x");
    EXPECT_THROW(Checkpoint::open(path), CheckpointError) << name;
    write_text(file, whole);
  }
  EXPECT_EQ(variant_of(path), 1);
}

TEST_F(CheckpointTest, MessagesSayWhichFileAndWhy) {
  const std::string path = save(7, 1);
  const std::string other = save(8, 2);
  const std::string model = path + "/model.safetensors";
  ASSERT_EQ(fs::file_size(model), fs::file_size(other + "/model.safetensors"));

  fs::copy_file(other + "/model.safetensors", model, fs::copy_options::overwrite_existing);
  EXPECT_THAT(opening(path), refused("'model.safetensors' is damaged"));
  write_text(model, "short");
  EXPECT_THAT(opening(path), refused("has 5 bytes instead of"));
  fs::remove(model);
  EXPECT_THAT(opening(path), refused("lacks its file 'model.safetensors'"));
  fs::create_directory(model);
  EXPECT_THAT(opening(path), refused("folder"));
  fs::remove(path + "/checkpoint.json");
  EXPECT_THAT(opening(path), refused("has no checkpoint.json"));
  EXPECT_THAT(opening(folder() + "/nowhere"), refused("no such folder"));
}

TEST_F(CheckpointTest, OtherManifestsAreRefused) {
  const std::string path = save(7, 1);
  const auto with = [&](const std::string& text) {
    write_text(path + "/checkpoint.json", text);
    return opening(path);
  };
  const std::string good = R"({"format": "trireme-checkpoint", "version": 1, "step": 7, )"
                           R"("state": {}, "files": [])";
  EXPECT_NO_THROW(with(sealed(good))());
  EXPECT_THAT(with(sealed(R"({"format": "trireme-checkpoint", "version": 2, "more": [[1]])")),
              refused("version 2, this Trireme reads version 1; use a newer Trireme"));
  EXPECT_THAT(with(sealed(R"({"format": "other", "version": 1)")),
              refused("not a Trireme checkpoint"));
  EXPECT_THAT(with(sealed(R"({"format": 5)")), refused("wrong type"));
  EXPECT_THAT(with("[1, 2]"), refused("not a Trireme checkpoint"));
  EXPECT_THAT(with(""), refused("not valid JSON"));
  EXPECT_THAT(with(sealed(good + R"(, "step": 8)")), refused("not valid JSON"));
  EXPECT_THAT(with("{\"a\": " + std::string(1'000'000, '[')), refused("not valid JSON"));
  EXPECT_THAT(with(sealed(good) + std::string(1, '\0')), refused("not valid JSON"));
  EXPECT_THAT(with(sealed(good) + "\n"), refused("digest at its end"));
  EXPECT_THAT(with(std::string(20'000'000, ' ')), refused("20000000 bytes"));
  const std::string head = R"({"format": "trireme-checkpoint", "version": 1, )";
  for (const char* body :
       {R"("step": "7", "state": {}, "files": [])", R"("step": 7, "state": {"a": 1}, "files": [])",
        R"("step": 7, "state": {})", R"("step": 7, "state": {}, "files": [{"name": "a"}])",
        R"("step": 7, "state": {}, "files": [7])"}) {
    EXPECT_THAT(with(sealed(head + body)), refused("wrong type")) << body;
  }
}

TEST_F(CheckpointTest, ManifestsCannotReachOutOfTheFolder) {
  const std::string path = save(7, 1);
  const std::string secret = (temporary_ / "secret").string();
  write_text(secret, "x");
  const std::string digest = detail::digest_of(detail::as_bytes("x"));
  for (const std::string& name :
       {std::string("../../secret"), secret, std::string(".."), std::string("."), std::string(),
        std::string("checkpoint.json"), std::string("a\0b", 3), std::string(256, 'n')}) {
    write_text(path + "/checkpoint.json", detail::render_manifest({7, {}, {{name, 1, digest}}}));
    EXPECT_THAT(opening(path), refused("no plain file name")) << name;
  }
  write_text(path + "/a", "x");
  write_text(path + "/checkpoint.json",
             detail::render_manifest({7, {}, {{"a", 1, digest}, {"a", 1, digest}}}));
  EXPECT_THAT(opening(path), refused("comes twice"));
}

TEST_F(CheckpointTest, WriterRefusesBadNamesAndText) {
  CheckpointWriter writer(folder(), 7);
  writer.add_file("a", "1");
  EXPECT_THAT([&] { writer.add_file("a", "2"); }, ThrowsMessage<ConfigError>(HasSubstr("'a'")));
  for (const char* name : {"", "..", "x/y", "/tmp/x", "checkpoint.json"}) {
    EXPECT_THROW(writer.add_file(name, "2"), ConfigError) << name;
    EXPECT_THROW(writer.add_tensors(name, {}), ConfigError) << name;
  }
  EXPECT_THROW(writer.commit({{"key", "\xff"}}), ConfigError);
  EXPECT_THROW(writer.commit({{"key", std::string(17 << 20, 'x')}}), ConfigError);
  EXPECT_EQ(Checkpoint::open(writer.commit({})).file("a"), "1");
  EXPECT_THROW(writer.commit({}), InternalError);
  EXPECT_THROW(writer.add_file("b", ""), InternalError);
}

TEST_F(CheckpointTest, OneWriterPerFolder) {
  auto first = std::make_unique<CheckpointWriter>(folder(), 7);
  first->add_file("a", "1");
  EXPECT_THAT([&] { CheckpointWriter(folder(), 8); }, refused("in use"));
  EXPECT_THAT([&] { prune_checkpoints(folder(), 1); }, refused("in use"));
  EXPECT_THAT(names(), ElementsAre("step-00000007.tmp"));
  first.reset();
  EXPECT_TRUE(names().empty());
  CheckpointWriter next(folder(), 8);
  next.commit({});
  EXPECT_NO_THROW(prune_checkpoints(folder(), 1));  // next is alive but has committed
}

TEST_F(CheckpointTest, FoldersThatCannotBe) {
  write_text(temporary_ / "file", "x");
  EXPECT_THAT([&] { CheckpointWriter((temporary_ / "file").string(), 1); }, refused("Not a dir"));
  EXPECT_THAT([&] { CheckpointWriter((temporary_ / "file/sub").string(), 1); }, refused("file"));
  EXPECT_THAT([&] { list_checkpoints((temporary_ / "file").string()); }, refused("Not a dir"));
}

// Lowers the file size limit of this process for a scope; writes beyond it fail with EFBIG.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit lowered = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &lowered);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_ = {};
  void (*handler_)(int);
};

TEST_F(CheckpointTest, AFailedWriteLeavesWhatWasThere) {
  const std::string path = save(7, 1);
  const auto largest = fs::file_size(path + "/model.safetensors");
  for (rlim_t limit = 0; limit < largest; limit += 5) {
    std::string message;
    {
      const FileSizeLimit full(limit);
      try {
        save(7, 2);
      } catch (const CheckpointError& error) {
        message = error.what();
      }
    }
    EXPECT_THAT(message, AllOf(HasSubstr("File too large"), HasSubstr("step-00000007.tmp")));
    EXPECT_THAT(names(), ElementsAre("step-00000007"));
  }
  EXPECT_EQ(variant_of(path), 1);
}

}  // namespace
}  // namespace trireme
