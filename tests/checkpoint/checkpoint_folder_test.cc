// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/checkpoint_folder.h"

#include <gmock/gmock.h>

#include "tests/checkpoint/fixture.h"
#include "tests/support/files.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using testing::CheckpointTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;
using testing::write_text;

class CheckpointFolderTest : public CheckpointTest {};

TEST_F(CheckpointFolderTest, ListsByStepAndNothingElse) {
  EXPECT_THAT(list_checkpoints(folder()), IsEmpty());
  for (const char* name :
       {"step-00000020", "step-00000003", "step-123456789", "step-00000004.tmp",
        "step-00000005.gone", "step-20", "step-000000020", "step--0000001", "step-0000000a",
        "step-", "notes", "step-00000006.bak", "step-00000099999999999999"}) {
    fs::create_directories(step_folder(name));
  }
  write_text(step_folder("step-00000007"), "a file");
  EXPECT_THAT(list_checkpoints(folder()),
              ElementsAre(step_folder("step-00000003"), step_folder("step-00000020"),
                          step_folder("step-123456789")));
}

TEST_F(CheckpointFolderTest, PruneKeepsTheHighestSteps) {
  for (const std::int64_t step : {30, 7, 100, 5}) save(step, static_cast<int>(step));
  prune_checkpoints(folder(), 5);
  EXPECT_EQ(names().size(), 4u);
  prune_checkpoints(folder(), 2);
  EXPECT_THAT(names(), ElementsAre("step-00000030", "step-00000100"));
  EXPECT_EQ(variant_of(step_folder("step-00000100")), 100);
  prune_checkpoints(folder(), 1);
  EXPECT_THAT(names(), ElementsAre("step-00000100"));
  EXPECT_THAT([&] { prune_checkpoints(folder(), 0); }, ThrowsMessage<ConfigError>(HasSubstr("0")));
}

TEST_F(CheckpointFolderTest, ResolvesWhatAUserMeans) {
  const std::string run = temporary_.path().string();
  EXPECT_THAT([&] { resolve_checkpoint(run); },
              ThrowsMessage<CheckpointError>(HasSubstr("no checkpoint at '" + run)));
  EXPECT_THAT([&] { resolve_checkpoint(run + "/absent"); },
              ThrowsMessage<CheckpointError>(HasSubstr("no such file")));
  const std::string older = save(5, 1);
  const std::string newer = save(12, 2);
  EXPECT_EQ(resolve_checkpoint(run), newer);
  EXPECT_EQ(resolve_checkpoint(folder()), newer);
  EXPECT_EQ(variant_of(resolve_checkpoint(folder() + "/")), 2);
  EXPECT_EQ(resolve_checkpoint(older), older);
  EXPECT_THAT([&] { resolve_checkpoint(older + "/model.safetensors"); },
              ThrowsMessage<CheckpointError>(HasSubstr("is a file")));
}

// Every mixture of names that a crash could leave of one step, beside a step that stays.
TEST_F(CheckpointFolderTest, RecoversFromEveryMixtureOfNames) {
  const std::string stays = save((temporary_ / "stays").string(), 3, 3);
  const std::string present = save((temporary_ / "present").string(), 7, 1);
  const std::string aside = save((temporary_ / "aside").string(), 7, 2);
  for (int mixture = 0; mixture < 16; ++mixture) {
    fs::remove_all(folder());
    const auto put = [&](const std::string& from, const std::string& name) {
      fs::create_directories(folder());
      fs::copy(from, step_folder(name), fs::copy_options::recursive);
    };
    put(stays, "step-00000003");
    if (mixture & 1) put(present, "step-00000007");
    if (mixture & 2) put(aside, "step-00000007.old");
    if (mixture & 4) fs::create_directories(step_folder("step-00000007.tmp/half"));
    if (mixture & 8) fs::create_directories(step_folder("step-00000007.gone/half"));
    const bool has_seven = (mixture & 3) != 0;
    const int expected = (mixture & 1) ? 1 : 2;

    const std::vector<std::string> before = list_checkpoints(folder());
    EXPECT_EQ(before.size(), has_seven ? 2u : 1u) << mixture;
    if (has_seven) {
      EXPECT_EQ(variant_of(before[1]), expected) << mixture;
    }
    checkpoint_detail::recover_folder(folder());
    if (has_seven) {
      EXPECT_THAT(names(), ElementsAre("step-00000003", "step-00000007")) << mixture;
      EXPECT_EQ(variant_of(step_folder("step-00000007")), expected) << mixture;
    } else {
      EXPECT_THAT(names(), ElementsAre("step-00000003")) << mixture;
    }
    EXPECT_EQ(variant_of(step_folder("step-00000003")), 3);
  }
}

}  // namespace
}  // namespace trireme
