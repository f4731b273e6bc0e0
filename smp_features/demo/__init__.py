"""Made-up posts in the SMPD layout, and the tiny trained models that understand them."""
