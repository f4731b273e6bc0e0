"""The served model: what turns rows of `post_features` into popularity."""
