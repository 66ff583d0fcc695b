/*
 * nogettext.c
 *		Preloaded with the address sanitizer: no translations.
 *
 * With the sanitizer's library in front, glibc's lock of the message catalogs
 * is released more often than it is taken while libraries are being loaded, and
 * a server then waits for it forever in main().  Nobody reads translations here.
 */
char	   *bindtextdomain(const char *domain, const char *dir) { return (char *) dir; }
char	   *bind_textdomain_codeset(const char *domain, const char *codeset) { return (char *) codeset; }
char	   *textdomain(const char *domain) { return (char *) domain; }
char	   *gettext(const char *id) { return (char *) id; }
char	   *dgettext(const char *domain, const char *id) { return (char *) id; }
char	   *dcgettext(const char *domain, const char *id, int category) { return (char *) id; }
char	   *ngettext(const char *one, const char *many, unsigned long n) { return (char *) (n == 1 ? one : many); }
char	   *dngettext(const char *domain, const char *one, const char *many, unsigned long n) { return (char *) (n == 1 ? one : many); }
